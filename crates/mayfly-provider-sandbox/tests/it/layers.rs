//! What is told of this host, part by part.

use mayfly_provider_sandbox::LayerState;

use crate::world::{World, is_root};

/// A host on which machines can be made has all of it; only limits may be missing, and not to root.
#[tokio::test]
async fn every_layer_is_tried_and_nothing_is_left_of_it() {
    let world = World::new();
    let layers = world.sandbox.layers().await.unwrap();
    let names: Vec<_> = layers.iter().map(|layer| layer.name.as_str()).collect();
    let parts = ["user namespaces", "other namespaces", "overlay", "Landlock", "seccomp"];
    assert_eq!(names, [&parts[..], &["memory limit", "process limit", "processor limit"]].concat());
    for (i, layer) in layers.iter().enumerate() {
        let expected = if i < parts.len() || is_root() { LayerState::Works } else { layer.state };
        assert_eq!(layer.state, expected, "{layer:?}");
        assert_eq!(layer.fix.is_some(), layer.state != LayerState::Works, "{layer:?}");
        assert!(layer.state != LayerState::Missing && !layer.detail.is_empty(), "{layer:?}");
    }
    assert_eq!(std::fs::read_dir(&world.config.machines).unwrap().count(), 0, "files are left");
}

/// A binary that is not ours says nothing that could be taken for an answer.
#[tokio::test]
async fn a_trial_by_another_program_is_no_answer() {
    let world = World::new();
    let config =
        mayfly_provider_sandbox::SandboxConfig { mayfly: "/bin/true".into(), ..world.config.clone() };
    let error = mayfly_provider_sandbox::Sandbox::new(config).layers().await.unwrap_err();
    assert!(error.to_string().contains("its binary may not be ours"), "{error}");
}
