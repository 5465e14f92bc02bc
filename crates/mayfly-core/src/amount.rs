//! How many bytes there are, for people.

/// In the largest unit of which there is one at least, to a tenth.
pub fn amount(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((unit, name)) = UNITS.iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes} bytes");
    };
    let tenths = (u128::from(bytes) * 10 + u128::from(unit / 2)) / u128::from(*unit);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, tenth) => format!("{whole}.{tenth} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_told_to_a_tenth_of_its_unit() {
        for (bytes, told) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1 << 10, "1 KiB"),
            (1535 << 20, "1.5 GiB"),
            (300 << 30, "300 GiB"),
            ((1 << 30) + 1, "1 GiB"),
            (u64::MAX, "17179869184 GiB"),
        ] {
            assert_eq!(amount(bytes), told);
        }
    }
}
