//! A program that a machine can show, and that says what it is told to, such as that it is the CLI.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What the CLI prints.
pub(crate) const CLAUDE: &str = "0.0.1 (Claude Code)\n";
/// Where it is in memory.
const AT: u64 = 0x40_0000;
/// The length of the headers, behind which the code is.
const HEADERS: u64 = 0x78;

/// Makes one at `path` that prints this: a header, one segment, and the code, which writes and exits.
pub(crate) fn stand_in(path: &Path, says: &str) {
    let (machine, code) = code(says.len());
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let half = |elf: &mut Vec<u8>, value: u16| elf.extend(value.to_le_bytes());
    let word = |elf: &mut Vec<u8>, value: u32| elf.extend(value.to_le_bytes());
    let long = |elf: &mut Vec<u8>, value: u64| elf.extend(value.to_le_bytes());
    for value in [2, machine] {
        half(&mut elf, value);
    }
    word(&mut elf, 1);
    for value in [AT + HEADERS, 0x40, 0] {
        long(&mut elf, value);
    }
    word(&mut elf, 0);
    for value in [0x40, 0x38, 1, 0, 0, 0] {
        half(&mut elf, value);
    }
    for value in [1, 5] {
        word(&mut elf, value);
    }
    let size = HEADERS + (code.len() + says.len()) as u64;
    for value in [0, AT, AT, size, size, 0x1000] {
        long(&mut elf, value);
    }
    elf.extend(code);
    elf.extend(says.as_bytes());
    fs::write(path, elf).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The processor, as ELF numbers it, and `write(1, …); exit(0)` for it, of what is behind the code, so long.
#[cfg(target_arch = "x86_64")]
fn code(length: usize) -> (u16, Vec<u8>) {
    let length = u8::try_from(length).unwrap();
    let code: [&[u8]; 8] = [
        b"\xb8\x01\0\0\0",         // mov eax, 1
        b"\xbf\x01\0\0\0",         // mov edi, 1
        b"\x48\x8d\x35\x10\0\0\0", // lea rsi, [rip + 16]: what is behind the code
        &[0xba, length, 0, 0, 0],  // mov edx, length
        b"\x0f\x05",               // syscall
        b"\xb8\x3c\0\0\0",         // mov eax, 60
        b"\x31\xff",               // xor edi, edi
        b"\x0f\x05",               // syscall
    ];
    (0x3e, code.concat())
}

/// The processor, as ELF numbers it, and `write(1, …); exit(0)` for it, of what is behind the code, so long.
#[cfg(target_arch = "aarch64")]
fn code(length: usize) -> (u16, Vec<u8>) {
    let length = u32::try_from(length).unwrap();
    let code = [
        0xd280_0020,               // mov x0, #1
        0x1000_00e1,               // adr x1, #28: what is behind the code
        0xd280_0002 | length << 5, // mov x2, #length
        0xd280_0808,               // mov x8, #64
        0xd400_0001,               // svc #0
        0xd280_0000,               // mov x0, #0
        0xd280_0ba8,               // mov x8, #93
        0xd400_0001,               // svc #0
    ];
    (0xb7, code.iter().flat_map(|word: &u32| word.to_le_bytes()).collect())
}
