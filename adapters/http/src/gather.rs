//! A body whose ready pieces go out together.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

/// As many pieces as the operating system is given with one call; hyper passes on no more.
const MOST_PIECES: usize = 64;

/// Joins the pieces of a body that are ready into one, without copying: hyper takes few pieces at a time and writes them before it asks
/// for more, which costs a list of many pieces a system call for every other of them.
pub(crate) struct Gathered<B> {
    body: B,
    /// What came after the pieces that were handed over: an end that is no data, or a failure.
    next: Option<Result<Frame<Joined>, io::Error>>,
}

/// Pieces of a body, as one buffer.
pub(crate) struct Joined {
    first: Bytes,
    rest: VecDeque<Bytes>,
    left: usize,
}

impl<B> Gathered<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { body, next: None }
    }
}

impl<B: HttpBody<Data = Bytes, Error = io::Error> + Unpin> HttpBody for Gathered<B> {
    type Data = Joined;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Joined>, io::Error>>> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(next));
        }
        let mut gathered: Option<Joined> = None;
        loop {
            if gathered.as_ref().is_some_and(Joined::is_full) {
                return Poll::Ready(gathered.map(|pieces| Ok(Frame::data(pieces))));
            }
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            let other = match polled {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => {
                        match &mut gathered {
                            None => gathered = Some(Joined::of(piece)),
                            Some(pieces) => pieces.push(piece),
                        }
                        continue;
                    }
                    Err(frame) => Poll::Ready(Some(Ok(frame.map_data(Joined::of)))),
                },
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            };
            let Some(pieces) = gathered else {
                return other;
            };
            if let Poll::Ready(next) = other {
                self.next = next;
            }
            return Poll::Ready(Some(Ok(Frame::data(pieces))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Joined {
    fn of(piece: Bytes) -> Self {
        Self {
            left: piece.len(),
            first: piece,
            rest: VecDeque::new(),
        }
    }

    fn push(&mut self, piece: Bytes) {
        self.left += piece.len();
        // A buffer with something left never shows an empty piece.
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.push_back(piece);
        }
    }

    fn is_full(&self) -> bool {
        MOST_PIECES <= self.rest.len() + 1
    }
}

impl Buf for Joined {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(std::iter::once(&self.first).chain(&self.rest)) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.left -= count;
        while self.first.len() <= count {
            count -= self.first.len();
            match self.rest.pop_front() {
                Some(next) => self.first = next,
                None => {
                    self.first.clear();
                    return;
                }
            }
        }
        self.first.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn frames(pieces: &[&'static str]) -> Vec<Result<Frame<Bytes>, io::Error>> {
        let bytes = pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes()));
        bytes.map(|piece| Ok(Frame::data(piece))).collect()
    }

    async fn texts<B: HttpBody<Data = Bytes, Error = io::Error> + Unpin>(body: B) -> Vec<Result<String, String>> {
        let mut body = Gathered::new(body);
        let mut texts = Vec::new();
        while let Some(frame) = body.frame().await {
            texts.push(match frame {
                Ok(frame) => {
                    let mut data = frame.into_data().map_err(|_| "no data").unwrap();
                    Ok(String::from_utf8(data.copy_to_bytes(data.remaining()).to_vec()).unwrap())
                }
                Err(error) => Err(error.to_string()),
            });
        }
        texts
    }

    #[tokio::test]
    async fn what_is_ready_goes_together_and_a_pause_does_not_hold_it() {
        let first = stream::iter(frames(&["a", "b", "c"]));
        let paused = stream::once(async {
            tokio::task::yield_now().await;
            Ok(Frame::data(Bytes::from_static(b"d")))
        });
        let body = StreamBody::new(Box::pin(first.chain(paused)));
        assert_eq!(texts(body).await, [Ok("abc".to_owned()), Ok("d".to_owned())]);
    }

    #[tokio::test]
    async fn a_failure_comes_after_what_was_ready() {
        let mut all = frames(&["a", "b"]);
        all.push(Err(io::Error::other("broken")));
        let body = StreamBody::new(stream::iter(all));
        assert_eq!(texts(body).await, [Ok("ab".to_owned()), Err("broken".to_owned())]);
    }

    #[tokio::test]
    async fn no_more_pieces_than_one_call_takes_go_together() {
        let all = frames(&["x"; MOST_PIECES + 1]);
        let body = StreamBody::new(stream::iter(all));
        let lengths: Vec<usize> = texts(body).await.into_iter().map(|text| text.unwrap().len()).collect();
        assert_eq!(lengths, [MOST_PIECES, 1]);
    }

    #[test]
    fn a_buffer_of_pieces_advances_over_their_borders() {
        let mut pieces = Joined::of(Bytes::new());
        for piece in ["ab", "", "cde", "f"] {
            pieces.push(Bytes::from_static(piece.as_bytes()));
        }
        pieces.advance(3);
        assert_eq!((pieces.remaining(), pieces.chunk()), (3, &b"de"[..]));
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(pieces.chunks_vectored(&mut slices), 2);
        assert_eq!((&slices[0][..], &slices[1][..]), (&b"de"[..], &b"f"[..]));
        pieces.advance(3);
        assert_eq!((pieces.remaining(), pieces.chunk()), (0, &b""[..]));
    }
}
