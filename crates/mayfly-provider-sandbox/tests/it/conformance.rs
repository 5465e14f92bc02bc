//! What every provider must do, done by this one.

use std::sync::Arc;

use mayfly_provider::conformance::{Stage, all};
use mayfly_provider::{Limits, MachineSpec};
use mayfly_provider_sandbox::Sandbox;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sandbox_conforms() {
    // Its socket takes what the workers dial, and nobody answers: they stay.
    let world = World::new();
    let (config, way_out) = (world.config.clone(), world.way_out.clone());
    let stage = Stage {
        open: Box::new(move || Arc::new(Sandbox::new(config.clone()))),
        spec: Box::new(move |attempt| MachineSpec {
            tools: Vec::new(),
            attempt,
            ticket: "none".to_owned().into(),
            workspace: None,
            way_out: way_out.clone(),
            limits: Limits::default(),
        }),
    };
    all(&stage).await;
}
