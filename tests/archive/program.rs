//! A Rust program that links libevloop.a.

use std::ptr::null;

#[link(name = "evloop", kind = "static")]
unsafe extern "C" {
    fn evloop_create(options: *const u8) -> i64;
    fn evloop_run(handle: i64, mode: i32) -> i32;
    fn evloop_close(handle: i64) -> i32;
}

fn main() {
    assert!(std::panic::catch_unwind(|| panic!("caught")).is_err());
    // SAFETY: the functions are those of evloop.h; NULL means the defaults.
    unsafe {
        let handle = evloop_create(null());
        assert!(handle > 0);
        assert_eq!(evloop_run(handle, 2), 0);
        assert_eq!(evloop_close(handle), 0);
    }
}
