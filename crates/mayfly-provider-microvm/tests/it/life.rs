//! A machine's life and ends, from outside.

use std::fs;

use mayfly_core::causes;
use mayfly_provider::{Provider as _, ProviderError, Sight};
use mayfly_provider_microvm::Microvm;
use mayfly_wire::system::{IMAGE, INITRAMFS, KERNEL};
use tokio::io::AsyncReadExt as _;

use crate::world::{TICKET, World, attempt, kill, processes_in, system_with};

#[tokio::test]
async fn a_guest_comes_to_its_own_door_and_its_end_is_seen() {
    let Some(world) = World::new() else { return };
    let machine = world.microvm.create(&world.spec(attempt(1))).await.unwrap();
    assert!(machine.alive);
    let (mut guest, _) = world.door.accept().await.unwrap();
    let mut said = vec![0; 4096];
    let read = guest.read(&mut said).await.unwrap();
    let said = String::from_utf8_lossy(&said[..read]).into_owned();
    assert!(said.starts_with("GET /v1/worker HTTP/1.1\r\n"), "{said}");
    // What it boots from went in once, and is nowhere on this host.
    let folder = world.config.machines.join(attempt(1).to_string());
    assert!(!folder.join("vsock_6293").exists());
    for file in ["state.json", "console.log"] {
        let text = fs::read(folder.join(file)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains(TICKET), "{file}");
    }
    // The next orchestrator finds it, and sees its end.
    let restarted = Microvm::new(world.config.clone());
    assert_eq!(restarted.look(attempt(1)).await.unwrap(), Sight::Alive);
    let [_device, qemu] = world.processes(attempt(1)).try_into().unwrap();
    kill(qemu);
    world.end_of(attempt(1)).await;
    let end = Sight::Ended(Some("QEMU ended (signal: 9 (SIGKILL))".to_owned()));
    assert_eq!(restarted.look(attempt(1)).await.unwrap(), end);
    restarted.destroy(attempt(1)).await.unwrap();
    assert!(world.is_empty());
}

#[tokio::test]
async fn a_guest_that_cannot_start_is_tried_twice_and_says_why() {
    let Some(mut world) = World::new() else { return };
    world.config.system = system_with(&world.config, world.dir.path(), INITRAMFS, "no initramfs");
    let microvm = Microvm::new(world.config.clone());
    let probed = microvm.probe().await.unwrap_err();
    let words = causes(&probed);
    assert!(words.contains("before its guest was up; its console said last: "), "{words}");
    assert!(matches!(probed, ProviderError::Refused { .. }));
    assert!(world.is_empty());
}

#[tokio::test]
async fn what_qemu_refuses_is_refused_in_its_words() {
    let Some(mut world) = World::new() else { return };
    world.config.system = system_with(&world.config, world.dir.path(), KERNEL, "no kernel");
    let refused = Microvm::new(world.config.clone()).create(&world.spec(attempt(1))).await.unwrap_err();
    assert!(matches!(refused, ProviderError::Refused { .. }), "{refused}");
    assert!(causes(&refused).contains("QEMU does not start"), "{}", causes(&refused));
    assert!(world.is_empty());
}

#[tokio::test]
async fn an_image_that_is_not_as_it_was_made_starts_nothing() {
    let Some(world) = World::new() else { return };
    let mut config = world.config.clone();
    config.system = system_with(&world.config, world.dir.path(), IMAGE, "an image");
    fs::write(config.system.join(IMAGE), "another").unwrap();
    let image = fs::canonicalize(&config.system).unwrap().join(IMAGE);
    let refused = Microvm::new(config).create(&world.spec(attempt(1))).await.unwrap_err();
    assert_eq!(
        causes(&refused),
        format!(
            "the microvm provider cannot make this machine: {} is not as it was made: \
             `mayfly image build --for microvm` makes it anew",
            image.display()
        )
    );
    assert!(world.is_empty());
}

#[tokio::test]
async fn a_holder_that_is_killed_takes_all_of_its_machine_along() {
    let Some(world) = World::new() else { return };
    world.microvm.create(&world.spec(attempt(1))).await.unwrap();
    kill(world.state(attempt(1))["holder"]["pid"].as_i64().unwrap());
    world.end_of(attempt(1)).await;
    assert_eq!(world.microvm.look(attempt(1)).await.unwrap(), Sight::Ended(None));
    world.microvm.destroy(attempt(1)).await.unwrap();
    assert!(world.is_empty(), "{:?}", processes_in(&world.config.machines));
}
