//! Allocations that report that there is no memory.

/// Box::new, which would end the process where there is no memory.
pub(crate) fn try_box<T>(value: T) -> Option<Box<T>> {
    let mut one = Vec::new();
    one.try_reserve_exact(1).ok()?;
    one.push(value);
    let slice = Box::into_raw(one.into_boxed_slice());
    // SAFETY: a slice of one T has the layout of a T, and is ours.
    Some(unsafe { Box::from_raw(slice.cast::<T>()) })
}
