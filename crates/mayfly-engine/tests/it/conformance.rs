//! The simulated provider behaves as real ones must.

use std::sync::Arc;

use mayfly_provider::conformance::{Stage, all};
use mayfly_provider::{Limits, MachineSpec, Provider};
use mayfly_testkit::SimProvider;

#[tokio::test]
async fn the_simulated_provider_conforms() {
    let (provider, _machines) = SimProvider::new();
    let stage = Stage {
        open: Box::new(move || Arc::new(provider.clone()) as Arc<dyn Provider>),
        spec: Box::new(|attempt| MachineSpec {
            attempt,
            ticket: "made up".into(),
            workspace: None,
            limits: Limits::default(),
        }),
    };
    all(&stage).await;
}
