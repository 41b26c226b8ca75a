//! Random numbers of the kernel (getrandom(2)).

/// The kernel gives no random bytes: before Linux 3.17, or forbidden by a seccomp filter.
#[derive(Debug, thiserror::Error)]
#[error("the kernel gives no random bytes: {0}")]
pub struct RandomError(#[source] getrandom::Error);

/// Bytes fit for keys. Waits, early at boot, until the kernel has collected enough entropy.
pub fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(RandomError)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_draws_differ() {
        assert_ne!(super::bytes::<32>().unwrap(), super::bytes::<32>().unwrap());
    }
}
