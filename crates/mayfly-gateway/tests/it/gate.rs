//! The answer waits for its gate; the request does not.

use futures_util::FutureExt;
use mayfly_gateway::CredentialKind;

use crate::bed::{Bed, Door, message};

#[tokio::test]
async fn no_byte_of_an_answer_passes_a_closed_gate() {
    let mut bed = Bed::new(CredentialKind::ApiKey).await;
    bed.door.send_replace(Door::Closed);
    let mut answer = tokio::spawn(bed.ask().send());
    bed.reached.recv().await.expect("the request goes out at once");
    bed.at_the_gate.recv().await.expect("the answer comes to the gate");
    assert!((&mut answer).now_or_never().is_none(), "the answer must wait");
    bed.door.send_replace(Door::Open);
    assert_eq!(answer.await.unwrap().unwrap().text().await.unwrap(), "{}");
}

#[tokio::test]
async fn a_gate_that_closes_for_good_denies_the_answer() {
    let mut bed = Bed::new(CredentialKind::ApiKey).await;
    bed.door.send_replace(Door::Closed);
    let answer = tokio::spawn(bed.ask().send());
    bed.reached.recv().await.expect("the request goes out at once");
    bed.door.send_replace(Door::Over);
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(answer.status(), 403);
    assert!(message(answer).await.contains("over"));
}
