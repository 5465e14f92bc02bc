//! What every provider must do, done by this one.

use std::sync::Arc;

use mayfly_provider::conformance::{Stage, all};
use mayfly_provider::{Limits, MachineSpec};
use mayfly_provider_microvm::Microvm;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn virtual_machines_conform() {
    // Its socket takes what the workers dial, and nobody answers: they stay.
    let Some(world) = World::new() else { return };
    let (config, way_out) = (world.config.clone(), world.dir.path().join("way-out"));
    let stage = Stage {
        open: Box::new(move || Arc::new(Microvm::new(config.clone()))),
        spec: Box::new(move |attempt| MachineSpec {
            tools: Vec::new(),
            attempt,
            ticket: "none".to_owned().into(),
            workspace: None,
            way_out: way_out.clone(),
            limits: Limits { memory_bytes_max: 256 << 20, ..Limits::default() },
        }),
    };
    all(&stage).await;
    assert!(world.is_empty());
}
