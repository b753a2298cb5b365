//! Another static library written in Rust, whose standard library is its own.

use std::collections::HashMap;

/// Uses memory, threads' storage and unwinding; 3 if all is well.
#[unsafe(no_mangle)]
pub extern "C" fn other(count: i32) -> i32 {
    let made = std::panic::catch_unwind(|| {
        let map: HashMap<i32, String> = (0..count).map(|n| (n, n.to_string())).collect();
        assert!(map.len() < 5, "unwound");
        map.len() as i32
    });
    made.unwrap_or(-1)
}
