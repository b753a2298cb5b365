//! Histograms of times: log-linear, with two significant decimal digits.
//!
//! Nanoseconds below 100 have a bucket each; above, each power of ten has 90,
//! for its first two digits: 1.2 ms to 1.3 ms is one.

/// Buckets for every i64 that is not negative.
pub(crate) const BUCKETS: usize = 100 + 17 * 90;

// Out of bounds a constant does not compile.
#[allow(clippy::indexing_slicing)]
const POWERS: [u64; 19] = {
    let mut powers = [1; 19];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// A little more than 2^64 divided by each power, to multiply with.
#[allow(clippy::indexing_slicing)]
const RECIPROCALS: [u64; 19] = {
    let mut reciprocals = [u64::MAX; 19];
    let mut i = 1;
    while i < reciprocals.len() {
        reciprocals[i] = ((1u128 << 64) / POWERS[i] as u128) as u64 + 1;
        i += 1;
    }
    reciprocals
};

fn power(i: usize) -> u64 {
    POWERS.get(i).copied().unwrap_or(u64::MAX)
}

/// The bucket of a time; a negative one counts as 0.
#[inline(always)]
pub(super) fn bucket_of(ns: i64) -> usize {
    let ns = ns.max(0).cast_unsigned();
    if ns < 100 {
        return ns as usize;
    }
    // The number of digits: from that of bits, one too many at most.
    let bits = 64 - ns.leading_zeros() as usize;
    let guess = (bits * 1233) >> 12;
    let digits = guess.wrapping_sub(usize::from(ns < power(guess)));
    let cut = digits.wrapping_sub(1) & 31;
    let reciprocal = RECIPROCALS.get(cut).copied().unwrap_or_default();
    let quotient = ((u128::from(ns) * u128::from(reciprocal)) >> 64) as u64;
    let above = quotient.wrapping_mul(power(cut)) > ns;
    let first_two = quotient.wrapping_sub(above.into()) as usize;
    (cut.wrapping_sub(1).wrapping_mul(90).wrapping_add(first_two).wrapping_add(90)).min(BUCKETS - 1)
}

/// The least time of a bucket, which is also where the one before ends;
/// i64::MAX behind the last.
pub(crate) fn least_of(bucket: usize) -> i64 {
    let Some(above) = bucket.checked_sub(100) else { return bucket as i64 };
    let first_two = 10 + (above % 90) as u64;
    let least = first_two.saturating_mul(power(1 + above / 90));
    i64::try_from(least).unwrap_or(i64::MAX)
}

/// Cells for lengths in units of a counter, whose rate is known better later:
/// one for each below 128, and 128 for each power of two. Finding one takes
/// but a few instructions.
pub(super) const CELLS: usize = 128 * 58;

/// The cell of a length.
#[inline(always)]
pub(super) fn cell_of(length: u64) -> usize {
    // The place of the highest bit, of those above the lowest seven.
    let above = 57u32.saturating_sub(length.leading_zeros());
    let low = (length >> above.saturating_sub(1)) as usize & 127;
    ((above as usize) << 7) | low
}

/// The bucket that the middle of a cell is in.
pub(super) fn bucket_of_cell(cell: usize, rate: u64) -> usize {
    let (above, low) = (cell >> 7, (cell & 127) as u128);
    let length = match above.checked_sub(1) {
        None => low << 1,
        Some(shift) => ((low + 128) << (shift + 1)) + (1 << shift),
    };
    // Twice the middle, so that there is one for cells of one.
    let ns = (length * u128::from(rate)) >> 33;
    bucket_of(i64::try_from(ns).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_of_its_first_two_digits() {
        let mut times = vec![0, 1, 9, 10, 99, 100, 101, i64::MAX, i64::MAX - 1];
        for one in POWERS.iter().skip(2).map(|power| power.cast_signed()) {
            for first in 1..=9 {
                for more in [-1, 0, 1, one / 10 - 1, one / 10] {
                    times.extend(one.checked_mul(first).and_then(|time| time.checked_add(more)));
                }
            }
        }
        let mut last = 0;
        times.sort_unstable();
        for time in times {
            let bucket = bucket_of(time);
            assert!(bucket >= last && bucket < BUCKETS, "{time} in {bucket}");
            assert!(least_of(bucket) <= time, "{time} in {bucket}");
            assert!(time < least_of(bucket + 1) || time == i64::MAX, "{time} in {bucket}");
            last = bucket;
        }
        assert_eq!(bucket_of(-5), 0);
        assert_eq!((least_of(bucket_of(1_250_000)), least_of(100)), (1_200_000, 100));
    }

    #[test]
    fn a_cell_is_in_the_bucket_of_its_lengths() {
        let one = 1 << 32;
        let mut last = 0;
        for length in (0..400).chain([1000, 4096, 1 << 20, (1 << 20) + 9999, 1 << 40, 1 << 62]) {
            let cell = cell_of(length);
            assert!(cell >= last && cell < CELLS, "{length} in {cell}");
            last = cell;
            let (found, exact) = (bucket_of_cell(cell, one), bucket_of(length.cast_signed()));
            assert!(
                found.abs_diff(exact) <= usize::from(length >= 256),
                "{length}: {found}, {exact}"
            );
        }
        assert_eq!(bucket_of_cell(cell_of(1000), one / 2), bucket_of(500));
        assert!(cell_of(u64::MAX) < CELLS);
    }

    #[test]
    fn buckets_are_a_hundredth_to_a_tenth_wide() {
        for bucket in 100..BUCKETS - 80 {
            let (least, next) = (least_of(bucket), least_of(bucket + 1));
            assert!(next > least && next - least <= least / 10, "{bucket}: {least} to {next}");
        }
    }
}
