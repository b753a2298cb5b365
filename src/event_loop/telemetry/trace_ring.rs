//! What a loop did last: a ring that its thread writes, and that another reads
//! once.
//!
//! An entry is written word by word, and then counted. There is one place more
//! than entries are kept, so that the one that is being written is none of
//! them. The reader reads the count again after the entries, and drops those
//! whose places may have been written since.

use crate::errno::{Result, fail};
use crate::sync::{AtomicU32, AtomicU64, Ordering::*};
use crate::util::alloc::{TryVec, try_array};

const WORDS: usize = 5;

/// Something that took time.
#[derive(Clone, Copy)]
pub(in crate::event_loop) struct TraceEntry {
    pub kind: i32,
    pub handle: i64,
    pub start: i64,
    pub end: i64,
    /// A timer's lateness; an io watcher's events and descriptor; how many
    /// events a wait has found.
    pub extra: u64,
}

/// The last entries; written by the loop's thread alone.
pub(in crate::event_loop) struct TraceRing {
    words: Box<[AtomicU64]>,
    entries: u64,
    /// How many there were in all.
    written: AtomicU64,
    /// Nothing more is to be written.
    closed: AtomicU32,
}

impl TraceRing {
    pub fn new(entries: usize) -> Result<Self> {
        // One more, which may be half written while the others are read.
        let count = entries.saturating_add(1).saturating_mul(WORDS);
        let Some(words) = try_array(count, |_| AtomicU64::new(0)) else {
            return no_memory(entries);
        };
        let (written, closed) = (AtomicU64::new(0), AtomicU32::new(0));
        Ok(Self { words, entries: entries as u64, written, closed })
    }

    /// How many it keeps.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The words of an entry.
    fn words_at(&self, number: u64) -> &[AtomicU64] {
        let start = (number % (self.entries + 1)) as usize * WORDS;
        self.words.get(start..start + WORDS).unwrap_or_default()
    }

    pub fn push(&self, thread: i32, entry: &TraceEntry) {
        if self.closed.load(Relaxed) != 0 {
            return;
        }
        let number = self.written.load(Relaxed);
        for (out, word) in self.words_at(number).iter().zip(words_of(thread, entry)) {
            // Release: who sees it knows that the one before it is counted.
            out.store(word, Release);
        }
        // Release: who counts it sees it whole.
        self.written.store(number.wrapping_add(1), Release);
    }

    /// All that are there, with their threads, in order of their beginning,
    /// the longer ones first; and how many are not there any more.
    pub fn read(&self) -> Result<(Vec<(i32, TraceEntry)>, u64)> {
        self.closed.store(1, Relaxed);
        let mut all = Vec::new();
        let written = self.written.load(Acquire);
        let first = written.saturating_sub(self.entries);
        if all.try_reserve_exact((written - first) as usize).is_err() {
            fail!(ENOMEM, "no memory for {} events", (written - first).cast_signed());
        }
        for number in first..written {
            let mut words = [0; WORDS];
            for (word, out) in words.iter_mut().zip(self.words_at(number)) {
                // Acquire: what was counted before it was written is seen to
                // be.
                *word = out.load(Acquire);
            }
            all.push_reserved(words);
        }
        // The loop's thread may have written on during the copy.
        let dropped = self.written.load(Relaxed).saturating_sub(self.entries);
        let lost = (dropped - first).min(all.len() as u64);
        let mut entries = Vec::new();
        if entries.try_reserve_exact(all.len() + 1).is_err() {
            fail!(ENOMEM, "no memory for {} events", all.len() as i64);
        }
        entries.try_extend(all.into_iter().skip(lost as usize).map(entry_of))?;
        entries.sort_unstable_by_key(|(_, entry)| (entry.start, std::cmp::Reverse(entry.end)));
        Ok((entries, dropped))
    }
}

pub(super) fn no_memory<T>(entries: usize) -> Result<T> {
    fail!(ENOMEM, "no memory for a trace of {} events", entries as i64)
}

fn words_of(thread: i32, entry: &TraceEntry) -> [u64; WORDS] {
    let what = u64::from(thread.cast_unsigned()) << 32 | u64::from(entry.kind.cast_unsigned());
    let (start, end) = (entry.start.cast_unsigned(), entry.end.cast_unsigned());
    [what, entry.handle.cast_unsigned(), start, end, entry.extra]
}

fn entry_of(words: [u64; WORDS]) -> (i32, TraceEntry) {
    let [what, handle, start, end, extra] = words;
    let (kind, handle) = (what as u32 as i32, handle.cast_signed());
    let (start, end) = (start.cast_signed(), end.cast_signed());
    ((what >> 32) as i32, TraceEntry { kind, handle, start, end, extra })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_beside_a_writer_is_whole_and_the_last_there_was() {
        for _ in 0..20 {
            let ring = TraceRing::new(3).unwrap();
            let (entries, dropped) = std::thread::scope(|scope| {
                scope.spawn(|| {
                    for number in 1..40i64 {
                        let (kind, extra) = (number as i32, number.cast_unsigned());
                        let (handle, start, end) = (number, number, number);
                        ring.push(0, &TraceEntry { kind, handle, start, end, extra });
                    }
                });
                ring.read().unwrap()
            });
            assert!(entries.len() <= 3);
            for (_, found) in entries {
                let number = found.handle;
                assert!(number > dropped.cast_signed());
                assert_eq!(
                    (i64::from(found.kind), found.start, found.end),
                    (number, number, number)
                );
                assert_eq!(found.extra, number.cast_unsigned());
            }
        }
    }
}

/// A thread that reads while the loop's thread writes over what is there.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Clone, Copy, PartialEq)]
    enum RingVariant {
        AsItIs,
        WritesRelaxed,
        CountsFirst,
    }

    /// All words of one say which it is.
    fn entry(number: i64) -> TraceEntry {
        let kind = number as i32;
        TraceEntry {
            kind,
            handle: number,
            start: number,
            end: number,
            extra: number.cast_unsigned(),
        }
    }

    fn push(ring: &TraceRing, number: i64, variant: RingVariant) {
        if variant == RingVariant::AsItIs {
            return ring.push(0, &entry(number));
        }
        let written = ring.written.load(Relaxed);
        if variant == RingVariant::CountsFirst {
            ring.written.store(written + 1, Release);
        }
        let order = if variant == RingVariant::WritesRelaxed { Relaxed } else { Release };
        for (out, word) in ring.words_at(written).iter().zip(words_of(0, &entry(number))) {
            out.store(word, order);
        }
        ring.written.store(written + 1, Release);
    }

    fn what_is_read_is_whole(variant: RingVariant) {
        loom::model(move || {
            let ring = Arc::new(TraceRing::new(1).unwrap());
            push(&ring, 1, RingVariant::AsItIs);
            // Second, so that its loads may have every value.
            let reader = {
                let ring = ring.clone();
                thread::spawn(move || ring.read().unwrap())
            };
            for number in 2..5 {
                push(&ring, number, variant);
            }
            let (entries, dropped) = reader.join().unwrap();
            for (_, found) in entries {
                let number = found.handle;
                let whole = words_of(0, &found) == words_of(0, &entry(number));
                assert!(whole && number > dropped.cast_signed(), "half of another entry");
            }
        });
    }

    #[test]
    fn loom_what_is_read_of_a_trace_is_whole() {
        what_is_read_is_whole(RingVariant::AsItIs);
    }

    #[test]
    #[should_panic(expected = "half of another entry")]
    fn loom_twin_words_that_are_written_relaxed_are_read_half() {
        what_is_read_is_whole(RingVariant::WritesRelaxed);
    }

    #[test]
    #[should_panic(expected = "half of another entry")]
    fn loom_twin_an_entry_that_is_counted_before_it_is_written_is_read_half() {
        what_is_read_is_whole(RingVariant::CountsFirst);
    }
}
