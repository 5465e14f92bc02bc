//! Firecracker's life from outside, by a stand-in that is strict and fails as the guest's kernel says; and by the real one,
//! where `MAYFLY_FIRECRACKER` names it, as far as this host's processor goes.

use std::fs;
use std::time::Duration;

use mayfly_core::causes;
use mayfly_provider::conformance::all;
use mayfly_provider::{Provider as _, ProviderError, Sight};
use mayfly_provider_microvm::{Microvm, Vmm};
use tokio::io::AsyncReadExt as _;

use crate::world::{TICKET, World, attempt, kill};

/// None where this user may not use hardware for machines: then Firecracker is refused.
fn world(kernel: &str, vmm: Vmm) -> Option<World> {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        mayfly_test_needs::skip("/dev/kvm cannot be opened");
        return None;
    }
    Some(World::of_stand_ins(kernel, vmm))
}

/// Why no machine is made, in whole.
async fn refused(world: &World) -> String {
    let refused = world.microvm.create(&world.spec(attempt(1))).await.unwrap_err();
    assert!(matches!(refused, ProviderError::Refused { .. }), "{refused}");
    assert!(world.is_empty());
    causes(&refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_of_firecracker_conform() {
    let Some(world) = world("a kernel", Vmm::Firecracker) else { return };
    all(&world.stage()).await;
    assert!(world.is_empty());
}

#[tokio::test]
async fn a_guest_of_firecracker_comes_to_its_door_and_its_end_is_seen() {
    let Some(world) = world("a kernel", Vmm::Firecracker) else { return };
    let machine = world.microvm.create(&world.spec(attempt(1))).await.unwrap();
    assert!(machine.alive && machine.notes.is_empty());
    let (mut guest, _) = world.door.accept().await.unwrap();
    let mut said = [0; 27];
    guest.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"GET /v1/worker HTTP/1.1\r\nho");
    let folder = world.config.machines.join(attempt(1).to_string());
    assert!(!folder.join("vsock_6293").exists());
    assert!(!fs::read_to_string(folder.join("state.json")).unwrap().contains(TICKET));
    let [firecracker] = world.processes(attempt(1)).try_into().unwrap();
    kill(firecracker);
    world.end_of(attempt(1)).await;
    let end = Sight::Ended(Some("Firecracker ended (signal: 9 (SIGKILL))".to_owned()));
    assert_eq!(world.microvm.look(attempt(1)).await.unwrap(), end);
    world.microvm.destroy(attempt(1)).await.unwrap();
    assert!(world.is_empty());
}

#[tokio::test]
async fn a_guest_that_was_started_and_is_gone_is_seen_by_its_process_alone() {
    let Some(world) = world("dies", Vmm::Firecracker) else { return };
    world.microvm.create(&world.spec(attempt(1))).await.unwrap();
    world.end_of(attempt(1)).await;
    let Sight::Ended(Some(end)) = world.microvm.look(attempt(1)).await.unwrap() else { panic!("alive") };
    assert_eq!(end, "it turned itself off before its guest was up; its console said nothing");
    let probed = world.microvm.probe().await.unwrap_err();
    assert!(causes(&probed).contains("it turned itself off before its guest was up"), "{}", causes(&probed));
}

#[tokio::test]
async fn a_guest_that_hangs_is_given_up_at_its_deadline() {
    let Some(mut world) = world("hangs", Vmm::Firecracker) else { return };
    world.config.boot_max = Duration::from_secs(1);
    let probed = Microvm::new(world.config.clone()).probe().await.unwrap_err();
    assert!(causes(&probed).contains("its guest was not up within 1 s"), "{}", causes(&probed));
    assert!(world.is_empty());
}

#[tokio::test]
async fn a_holder_that_is_killed_takes_firecracker_along_in_each_phase() {
    for kernel in ["hangs", "a kernel"] {
        let Some(world) = world(kernel, Vmm::Firecracker) else { return };
        world.microvm.create(&world.spec(attempt(1))).await.unwrap();
        if kernel != "hangs" {
            world.door.accept().await.unwrap();
        }
        kill(world.state(attempt(1))["holder"]["pid"].as_i64().unwrap());
        world.end_of(attempt(1)).await;
        // The next orchestrator finds what is left, and makes it again or clears it away.
        let restarted = Microvm::new(world.config.clone());
        assert_eq!(restarted.look(attempt(1)).await.unwrap(), Sight::Ended(None), "{kernel}");
        assert!(!restarted.list().await.unwrap()[0].alive, "{kernel}");
        restarted.destroy(attempt(1)).await.unwrap();
        assert!(world.is_empty(), "{kernel}");
    }
}

#[tokio::test]
async fn what_firecracker_refuses_is_refused_in_its_words() {
    let Some(world) = world("refused", Vmm::Firecracker) else { return };
    let words = "Firecracker refuses /boot-source (400 Bad Request: Boot source error: Invalid kernel)";
    assert!(refused(&world).await.ends_with(words));
}

#[tokio::test]
async fn a_version_with_known_faults_is_refused() {
    let Some(world) = world("a kernel", Vmm::Firecracker) else { return };
    fs::write(world.dir.path().join("programs/version"), "1.15.0").unwrap();
    let words = refused(&world).await;
    assert!(words.ends_with("(CVE-2026-5747): install 1.14.4, 1.15.1 or later"), "{words}");
}

#[tokio::test]
async fn a_program_that_is_no_firecracker_is_refused_by_its_end() {
    let Some(world) = world("a kernel", Vmm::Firecracker) else { return };
    let program = world.dir.path().join("programs/firecracker");
    fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink("/bin/false", program).unwrap();
    assert!(refused(&world).await.contains("Firecracker does not start (exit status: 1: )"));
}

#[tokio::test]
async fn a_choice_falls_back_to_qemu_and_never_to_firecracker() {
    let Some(world) = world("dies", Vmm::Auto) else { return };
    // QEMU is not there: both reasons are told.
    let words = refused(&world).await;
    assert!(words.contains("cannot find `qemu-system-x86_64` on PATH"), "{words}");
    assert!(
        words.contains("no guest starts by Firecracker: it turned itself off before its guest was up"),
        "{words}"
    );
    let qemu =
        Microvm::new(mayfly_provider_microvm::MicrovmConfig { vmm: Vmm::Qemu, ..world.config.clone() });
    let words = causes(&qemu.create(&world.spec(attempt(1))).await.unwrap_err());
    assert!(words.contains("qemu-system-x86_64") && !words.contains("Firecracker"), "{words}");
}

#[tokio::test]
async fn a_guest_that_starts_by_firecracker_decides_for_it() {
    let Some(world) = world("a kernel", Vmm::Auto) else { return };
    let machine = world.microvm.create(&world.spec(attempt(1))).await.unwrap();
    assert_eq!(machine.notes, Vec::<String>::new());
    assert_eq!(world.processes(attempt(1)).len(), 1);
}

/// The real one takes what it is asked, whatever becomes of a guest on this host's processor.
#[tokio::test]
async fn the_real_firecracker_takes_each_request() {
    let Some(firecracker) = std::env::var_os("MAYFLY_FIRECRACKER") else {
        mayfly_test_needs::skip("MAYFLY_FIRECRACKER names no firecracker");
        return;
    };
    let Some(mut world) = World::new() else { return };
    let programs = world.dir.path().join("programs");
    fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink(firecracker, programs.join("firecracker")).unwrap();
    world.config.path = programs.into();
    world.config.vmm = Vmm::Firecracker;
    let microvm = Microvm::new(world.config.clone());
    microvm.create(&world.spec(attempt(1))).await.unwrap();
    assert_eq!(microvm.look(attempt(1)).await.unwrap(), Sight::Alive);
    microvm.destroy(attempt(1)).await.unwrap();
    assert!(world.is_empty());
}
