//! The body of an answer on its way to the machine.
//!
//! Pieces pass as they come. [`Counted`] reads them; whatever ends the body, also a machine that hangs up, what it used until
//! then is counted. [`Masked`] takes the secrets out of them in equal length, so that the length that was announced stays
//! true: only the end of a piece that may be the beginning of a secret waits for the next.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use mayfly_core::{AttemptId, Carry, Redactor};

use crate::count::Reader;
use crate::{Admission, Used};

/// One request for an answer, to be counted once. Dropped, it is.
#[derive(Debug)]
pub(crate) struct Bill {
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) attempt: AttemptId,
    /// Whether it is the main agent's.
    pub(crate) is_main: bool,
    /// Reads the answer, once there is a good one.
    pub(crate) reader: Option<Reader>,
}

impl Drop for Bill {
    fn drop(&mut self) {
        let used = self.reader.take().map(Reader::used).unwrap_or_default();
        let turn = self.is_main && used.turn;
        self.admission.count(self.attempt, Used { turn, ..used });
    }
}

/// A body that is read on its way.
#[derive(Debug)]
pub(crate) struct Counted<S> {
    pub(crate) body: S,
    pub(crate) bill: Option<Bill>,
}

impl<S: Stream<Item = Result<Bytes, E>> + Unpin, E> Stream for Counted<S> {
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = ready!(Pin::new(&mut self.body).poll_next(context));
        match (&piece, self.bill.as_mut().and_then(|bill| bill.reader.as_mut())) {
            (Some(Ok(piece)), Some(reader)) => reader.read(piece),
            (None, _) => self.bill = None,
            _ => {}
        }
        Poll::Ready(piece)
    }
}

/// A body without secrets.
#[derive(Debug)]
pub struct Masked<S> {
    body: S,
    redactor: Redactor,
    carry: Carry,
    places: u64,
}

impl<S> Masked<S> {
    /// Takes what `redactor` knows out of `body`.
    pub fn new(body: S, redactor: Redactor) -> Self {
        Self { body, redactor, carry: Carry::default(), places: 0 }
    }

    /// How many stretches were masked so far.
    pub fn places(&self) -> u64 {
        self.places
    }

    fn pass(&mut self, piece: Bytes, goes_on: bool) -> Bytes {
        if self.carry.is_empty() && self.redactor.is_clean(&piece, goes_on) {
            return piece;
        }
        let redacted = self.redactor.piece(&mut self.carry, &piece, goes_on);
        self.places += u64::from(redacted.places);
        redacted.bytes.into()
    }
}

impl<S: Stream<Item = Result<Bytes, E>> + Unpin, E> Stream for Masked<S> {
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Some(piece) = ready!(Pin::new(&mut self.body).poll_next(context)) {
            let passed = piece.map(|piece| self.pass(piece, true));
            // All of it may wait.
            if !passed.as_ref().is_ok_and(Bytes::is_empty) {
                return Poll::Ready(Some(passed));
            }
        }
        let rest = self.pass(Bytes::new(), false);
        Poll::Ready((!rest.is_empty()).then_some(Ok(rest)))
    }
}
