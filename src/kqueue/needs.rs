//! How many knotes of a descriptor need which events of epoll, so that a
//! change of one of them does not have to look at all others.

use super::epoll_set::*;

/// The events that knotes ask for.
const EVENTS: [u32; 4] = [IN, PRI, OUT, RDHUP];

/// What one knote needs: a kind of registration and some of [`EVENTS`]; or
/// nothing, as while it is disabled.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Need(u16);

impl Need {
    const EVENT_BITS: u32 = EVENTS.len() as u32;

    pub fn new(kind: usize, mask: u32) -> Self {
        if kind >= KINDS {
            return Self::default();
        }
        let bits = EVENTS.iter().enumerate().filter(|(_, event)| mask & **event != 0);
        let bits = bits.fold(0, |bits, (index, _)| bits | 1 << index);
        Self((kind as u16 + 1) << Self::EVENT_BITS | bits)
    }

    /// The kind of registration.
    fn kind(self) -> Option<usize> {
        usize::from(self.0 >> Self::EVENT_BITS).checked_sub(1)
    }

    fn has(self, index: usize) -> bool {
        self.0 & 1 << index != 0
    }
}

#[derive(Default)]
pub(super) struct Needs {
    /// How many knotes need a kind of registration.
    knotes: [u32; KINDS],
    /// Of these, each of the events.
    events: [[u32; EVENTS.len()]; KINDS],
}

impl Needs {
    /// A knote needs something else from now on.
    pub fn change(&mut self, from: Need, to: Need) {
        self.add(to, 1);
        self.add(from, u32::MAX);
    }

    fn add(&mut self, need: Need, one: u32) {
        let Some(kind) = need.kind() else { return };
        if let Some(knotes) = self.knotes.get_mut(kind) {
            *knotes = knotes.wrapping_add(one);
        }
        for (index, count) in self.events.get_mut(kind).into_iter().flatten().enumerate() {
            if need.has(index) {
                *count = count.wrapping_add(one);
            }
        }
    }

    /// Whether more than one knote needs this kind.
    pub fn is_shared(&self, kind: usize) -> bool {
        self.knotes.get(kind).is_some_and(|knotes| *knotes > 1)
    }

    /// How the descriptor is to be registered for all of them.
    pub fn masks(&self) -> Masks {
        let mut masks = [0; KINDS];
        for (kind, (mask, counts)) in masks.iter_mut().zip(&self.events).enumerate() {
            for (event, _) in EVENTS.iter().zip(counts).filter(|(_, count)| **count > 0) {
                *mask |= event;
            }
            if kind != LEVEL && *mask != 0 {
                *mask |= ET;
            }
        }
        masks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_those_of_the_knotes_that_are_left() {
        let (read, write) = (Need::new(LEVEL, IN | RDHUP), Need::new(LEVEL, OUT));
        let edge = Need::new(READ_EDGE, PRI);
        let mut needs = Needs::default();
        for need in [read, read, write, edge, Need::new(KINDS, 0)] {
            needs.change(Need::default(), need);
        }
        assert_eq!(needs.masks(), [IN | RDHUP | OUT, PRI | ET, 0]);
        assert!(needs.is_shared(LEVEL) && !needs.is_shared(READ_EDGE));
        needs.change(read, Need::default());
        needs.change(write, edge);
        assert_eq!(needs.masks(), [IN | RDHUP, PRI | ET, 0]);
        assert!(!needs.is_shared(LEVEL) && needs.is_shared(READ_EDGE));
        needs.change(read, Need::default());
        assert_eq!(needs.masks(), [0, PRI | ET, 0]);
    }
}
