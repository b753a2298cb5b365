//! The C API: the only place with exported symbols, C pointers and C types.
//!
//! The doc comments are those of include/evloop.h, which header/arrange.rs
//! puts into the order of header/sections.txt. A body checks its arguments,
//! pins the object, makes one call and converts the result.

mod arg;
mod guard;

mod types;

mod kqueue_types;

mod library;

mod tfd;

mod select;

mod poll;

mod epoll;

mod devpoll;

mod kqueue;

mod selector;

mod evloop;

mod sources;

mod timer;

mod signal;

mod process;

mod files;

mod pressure;

mod watcher;

mod inspect;

mod telemetry;
