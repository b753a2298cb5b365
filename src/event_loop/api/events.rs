//! Entry points that find what is longer than an event.

use crate::errno::{Result, fail};
use crate::event_loop::event::Event;
use crate::event_loop::flags::{ERROR, Source};
use crate::event_loop::payload::{EventPayload, forgotten};
use crate::event_loop::process_end::ProcessEnd;
use crate::event_loop::resolve::resolve;
use crate::event_loop::slot;
use crate::handle::{Handle, Kind};
use crate::signal_hub::Siginfo;
use crate::util::Out;

/// What belongs to an event of this kind.
fn payload_of(event: &Event, source: Source) -> Result<EventPayload> {
    if event.r#type != source as i32 || event.events & ERROR != 0 {
        let (r#type, source) = (event.r#type, source as i32);
        fail!(EINVAL, "the event has type {} or an error, not type {}", r#type, source);
    }
    // In a callback also of a watcher that was closed since, in the callback or
    // by another thread; its slot may be another's, of another loop, by now.
    let handle = Handle::unpack_as(event.watcher, Kind::Watcher);
    let shared = handle.and_then(|handle| slot::get(handle.index)?.shared());
    if let Some(shared) = shared.filter(|shared| shared.is_mine()) {
        // SAFETY: this thread runs the loop, whose run borrows nothing of the
        // state while a callback, which this call is in, runs.
        return unsafe { shared.with_state(|state| state.ctx.payloads.of(event)) }?;
    }
    let resolved = resolve(event.watcher, Kind::Watcher)?;
    resolved.with(
        |state| state.ctx.payloads.of(event),
        |_| fail!(EBUSY, "another thread runs the loop of watcher {}", event.watcher),
    )
}

/// See evloop_event_siginfo.
pub(crate) fn event_siginfo(event: &Event) -> Result<Siginfo> {
    match payload_of(event, Source::Signal)? {
        EventPayload::Signal(info) => Ok(info),
        EventPayload::Process(_) => forgotten(event),
    }
}

/// See evloop_event_process.
pub(crate) fn event_process(event: &Event) -> Result<ProcessEnd> {
    match payload_of(event, Source::Process)? {
        EventPayload::Process(ended) => Ok(ended.report()),
        EventPayload::Signal(_) => forgotten(event),
    }
}

/// See evloop_event_name and evloop_event_old_name.
pub(crate) fn event_name(event: &Event, old: bool, out: &mut Out<u8>) -> Result<usize> {
    if event.r#type != Source::File as i32 {
        fail!(EINVAL, "an event of type {} has no name", event.r#type);
    }
    let resolved = resolve(event.watcher, Kind::Watcher)?;
    resolved.check()?;
    let state = resolved.shared.files.lock();
    let name = state.name(event, old)?;
    out.push_text(name);
    out.end_text();
    Ok(name.len())
}
