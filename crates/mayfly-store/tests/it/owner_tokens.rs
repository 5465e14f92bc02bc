//! What is kept of the tokens of owners.

use mayfly_store::{OwnerToken, Store};

use crate::{AT, open};

fn token(name: &str, byte: u8) -> OwnerToken {
    OwnerToken { name: name.to_owned(), hash: [byte; 32], created: AT }
}

#[tokio::test]
async fn a_name_is_given_once_until_its_token_is_removed() {
    let (store, dir) = open();
    assert!(store.add_owner_token(token("laptop", 1)).await.unwrap());
    assert!(!store.add_owner_token(token("laptop", 2)).await.unwrap(), "taken");
    assert!(store.add_owner_token(token("ci", 3)).await.unwrap());
    drop(store);
    let store = Store::open(&dir.path().join("db")).unwrap();
    assert_eq!(store.owner_tokens().await.unwrap(), [token("ci", 3), token("laptop", 1)]);
    assert!(store.remove_owner_token("laptop".to_owned()).await.unwrap());
    assert!(!store.remove_owner_token("laptop".to_owned()).await.unwrap());
    assert!(store.add_owner_token(token("laptop", 2)).await.unwrap(), "free again");
    assert_eq!(store.owner_tokens().await.unwrap(), [token("ci", 3), token("laptop", 2)]);
}
