//! Names that are cut to the room that statistics and traces have for them.

/// As much of a text as so many bytes hold, and no part of a character.
pub(in crate::event_loop) fn cut(text: &[u8], most: usize) -> &[u8] {
    let goes_on = |i: &usize| text.get(*i).is_some_and(|byte| byte & 0xc0 == 0x80);
    // No character has more than three bytes that go on with it.
    let back = (0..3).take_while(|back| goes_on(&most.saturating_sub(*back))).count();
    text.get(..most - back).unwrap_or(text)
}
