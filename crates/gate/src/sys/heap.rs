//! The C library's heap.

/// Sets the limits that [`crate::bound_heap`] describes. Answers whether all were taken.
#[cfg(target_env = "gnu")]
pub(crate) fn bound(arenas: i32, mapped_from: i32, trimmed_from: i32) -> bool {
    [(libc::M_ARENA_MAX, arenas), (libc::M_MMAP_THRESHOLD, mapped_from), (libc::M_TRIM_THRESHOLD, trimmed_from)]
        .into_iter()
        // SAFETY: mallopt takes two numbers, keeps them, and is safe to call at any time; an unknown parameter is refused.
        .fold(true, |all, (parameter, value)| unsafe { libc::mallopt(parameter, value) } == 1 && all)
}

/// Other C libraries have no such limits.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn bound(_arenas: i32, _mapped_from: i32, _trimmed_from: i32) -> bool {
    false
}
