//! What every provider must do, done by this one.

use mayfly_provider::conformance::all;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn virtual_machines_conform() {
    // Its socket takes what the workers dial, and nobody answers: they stay.
    let Some(world) = World::new() else { return };
    all(&world.stage()).await;
    assert!(world.is_empty());
}
