//! Where a command of the writer works: the connection, and what the command says into logs.

use std::cell::RefCell;
use std::ops::Deref;

use rusqlite::Connection;

use crate::read::Run;

/// A connection in a transaction, and the runs that were written in it.
#[derive(Debug)]
pub(crate) struct Desk<'a> {
    connection: &'a Connection,
    /// With the position of the last event of each.
    written: RefCell<Vec<(u64, Run)>>,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self { connection, written: RefCell::default() }
    }

    /// Notes a run that was written, whose last event has this position.
    pub(crate) fn note(&self, position: u64, run: Run) {
        self.written.borrow_mut().push((position, run));
    }

    /// How many runs were written.
    pub(crate) fn mark(&self) -> usize {
        self.written.borrow().len()
    }

    /// Forgets those that were written after there were so many.
    pub(crate) fn undo(&self, mark: usize) {
        self.written.borrow_mut().truncate(mark);
    }

    /// All that was written.
    pub(crate) fn into_written(self) -> Vec<(u64, Run)> {
        self.written.into_inner()
    }
}

impl Deref for Desk<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}
