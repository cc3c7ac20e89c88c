//! Sizes on the command line.

/// Bytes with an optional suffix: K, M, G, T, alone or as in KiB.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let suffix = text[digits.len()..].to_ascii_uppercase();
    let shift = match suffix.as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(format!("`{suffix}` is not K, M, G or T")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "not a whole number of bytes, as in 512M".to_string())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "more than 64 bits hold".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("4GiB"), Ok(4 << 30));
        assert_eq!(bytes("17"), Ok(17));
        assert!(bytes("12X").is_err());
        assert!(bytes("G").is_err());
        assert!(bytes("99999999999T").is_err());
        assert!(bytes("-1").is_err());
    }
}
