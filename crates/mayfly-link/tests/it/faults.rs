//! Channels over connections that fail, and against a side that means harm.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mayfly_link::{Channel, Frame, LinkError, SILENCE_MAX, dial};
use mayfly_testkit::faulty::{Fault, FaultyWay, InMemory, in_memory};
use mayfly_wire::worker::{End, FRAME_BYTES_MAX, RECORD_BYTES_MAX, Record, Source, decode, encode};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{serve, text};

/// Every byte of a frame up to here is one after which the connection is reset.
const FRAME_BYTES: usize = 4096;
const RECORDS: usize = 16;

type Channels = mpsc::Receiver<Result<Channel, LinkError>>;

/// An accepting side whose connections are in memory.
fn host() -> (InMemory, Channels) {
    let (way, mut connections) = in_memory();
    let (made, channels) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(stream) = connections.recv().await {
            tokio::spawn(serve(stream, made.clone()));
        }
    });
    (way, channels)
}

async fn pair(faults: impl IntoIterator<Item = Fault>) -> (Channel, Channel) {
    let (way, mut channels) = host();
    let near = dial(&FaultyWay::new(way, faults), "/v1/worker", None).await.unwrap();
    (near, channels.recv().await.unwrap().unwrap())
}

/// What a handshake of ours takes: each is as long as the others.
async fn handshake_bytes() -> usize {
    let (way, mut connections) = in_memory();
    let dialling = tokio::spawn(async move { dial(&way, "/v1/worker", None).await });
    let mut far = connections.recv().await.unwrap();
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(far.read_u8().await.unwrap());
    }
    drop(far);
    dialling.await.unwrap().unwrap_err();
    asked.len()
}

/// Records that fill one frame of [`FRAME_BYTES`] and a little more.
fn records() -> Vec<Record> {
    let record = |i: usize| Record {
        number: u64::try_from(i).unwrap() + 1,
        at_ms: 1,
        source: Source::Claude,
        end: End::Newline,
        bytes: (0..FRAME_BYTES / RECORDS).map(|at| u8::try_from((at * 7 + i * 31) % 256).unwrap()).collect(),
    };
    (0..RECORDS).map(record).collect()
}

fn hash<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<u8> {
    let mut hash = Sha256::new();
    records.into_iter().for_each(|record| hash.update(&record.bytes));
    hash.finalize().to_vec()
}

/// Sends all that the other side does not have, as one frame. `Err`: the link was cut.
async fn send_rest(way: &FaultyWay<InMemory>, records: &[Record], stored: usize) -> Result<(), LinkError> {
    let mut near = dial(way, "/v1/worker", None).await?;
    near.send(Frame::Binary(encode(&records[stored..]))).await?;
    let (sender, _receiver) = near.split();
    sender.close().await
}

/// Takes whole records, each once, until the link is over.
async fn store(channels: &mut Channels, stored: &mut Vec<Record>) {
    // The handshake itself may not have got through.
    let Ok(mut far) = channels.recv().await.unwrap() else { return };
    while let Some(Ok(Frame::Binary(frame))) = far.recv().await {
        let new = decode(frame).expect("a whole frame").into_iter();
        let last = u64::try_from(stored.len()).unwrap();
        stored.extend(new.filter(|record| record.number > last));
    }
}

/// Covers R10.
#[tokio::test]
async fn a_reset_after_any_byte_of_a_frame_loses_and_repeats_nothing() {
    let (records, handshake) = (records(), handshake_bytes().await);
    let expected = hash(&records);
    for cut in 0..=FRAME_BYTES {
        let (way, mut channels) = host();
        let way = FaultyWay::new(way, [Fault::CutAfter(handshake + cut)]);
        let mut stored = Vec::new();
        let (sent, ()) = tokio::join!(send_rest(&way, &records, 0), store(&mut channels, &mut stored));
        assert!(matches!(sent, Err(LinkError::Cut(_))), "{cut}: {sent:?}");
        assert_eq!(stored.len(), 0, "a part of a frame is none, after {cut} bytes");
        let (sent, ()) = tokio::join!(send_rest(&way, &records, 0), store(&mut channels, &mut stored));
        sent.unwrap();
        assert_eq!(hash(&stored), expected, "after {cut} bytes");
    }
}

#[tokio::test]
async fn one_byte_at_a_time_is_slow_and_nothing_else() {
    let (mut near, mut far) = pair([Fault::OneByte]).await;
    let large = Frame::Binary(Bytes::from(vec![7; 100_000]));
    let (sent, got) = tokio::join!(near.send(large.clone()), far.recv());
    sent.unwrap();
    assert_eq!(got.unwrap().unwrap(), large);
    far.send(text("welcome")).await.unwrap();
    assert_eq!(near.recv().await.unwrap().unwrap(), text("welcome"));
}

/// Nothing passes any more, and no system tells: both sides find out by the silence, pings or not.
#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_found_out_by_both_sides() {
    let handshake = handshake_bytes().await;
    let (near, mut far) = pair([Fault::DeafAfter(handshake + 1)]).await;
    let (begun, (mut sender, mut receiver)) = (Instant::now(), near.split());
    sender.ping().await.unwrap();
    let (near_got, far_got) = tokio::join!(receiver.recv(), far.recv());
    for got in [near_got, far_got] {
        assert!(matches!(got, Some(Err(LinkError::Silent { .. }))), "{got:?}");
    }
    assert!(begun.elapsed() <= SILENCE_MAX + Duration::from_secs(1));
}

/// A connection by hand, and the channel at its other end.
async fn by_hand() -> (tokio::io::DuplexStream, Channel) {
    let (mut stream, far) = tokio::io::duplex(64 * 1024);
    let (made, mut channels) = mpsc::channel(1);
    tokio::spawn(serve(far, made));
    let handshake = "GET /v1/worker HTTP/1.1\r\nhost: m\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                     sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101 ") && !answer.contains("extensions"), "{answer}");
    (stream, channels.recv().await.unwrap().unwrap())
}

/// Covers S38: whoever asks for compression gets none, and frames that have it all the same are refused.
#[tokio::test]
async fn compression_is_not_agreed_to() {
    let (mut stream, mut far) = by_hand().await;
    stream.write_all(&[0xc2, 0x81, 0, 0, 0, 0, 0]).await.unwrap();
    assert!(matches!(far.recv().await, Some(Err(LinkError::Protocol(_)))));
}

/// Covers S38: many times what may be kept in pings, and nobody who reads the pongs.
#[tokio::test]
async fn a_flood_of_pings_is_no_heap_of_pongs() {
    let (mut stream, mut far) = by_hand().await;
    let mut pings = BytesMut::new();
    for _ in 0..1000 {
        pings.extend_from_slice(&[0x89, 0xfd, 0, 0, 0, 0]);
        pings.extend_from_slice(&[7; 125]);
    }
    let rounds = 4 * FRAME_BYTES_MAX / pings.len();
    let flood = async {
        for _ in 0..rounds {
            stream.write_all(&pings).await.unwrap();
        }
        stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
        stream
    };
    let (mut stream, got) = tokio::join!(flood, far.recv());
    assert_eq!(got.unwrap().unwrap(), text("hi"));
    let mut answers = Vec::new();
    let leave = async {
        let (sender, _receiver) = far.split();
        sender.close().await
    };
    let (left, read) = tokio::join!(leave, stream.read_to_end(&mut answers));
    left.unwrap();
    read.unwrap();
    assert!(answers.len() < FRAME_BYTES_MAX + RECORD_BYTES_MAX, "{} bytes of pongs", answers.len());
}
