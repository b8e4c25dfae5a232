//! The lines of an answer that goes on.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use kube::client::Body;

use crate::error::Failure;

/// An object is far smaller: etcd takes 1.5 MiB.
const LONGEST_LINE: usize = 8 << 20;

pub(crate) struct Lines {
    body: Body,
    pending: BytesMut,
    /// How much of `pending` is known to hold no end of a line.
    searched: usize,
}

impl Lines {
    pub(crate) fn new(body: Body) -> Self {
        Self {
            body,
            pending: BytesMut::new(),
            searched: 0,
        }
    }

    /// The next line, `None` at the end. Nothing is lost if it is dropped while it waits.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(found) = self.pending[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.pending.split_to(self.searched + found + 1).freeze();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.pending.len();
            if LONGEST_LINE < self.searched {
                return Err(Failure::unreadable_because(format!(
                    "a line of the watch is longer than {LONGEST_LINE} bytes"
                )));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Failure::from(kube::Error::Service(error.into()))),
                None => return Ok(None),
            }
        }
    }
}
