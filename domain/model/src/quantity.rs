//! Amounts of resources, as Kubernetes writes them.

/// An amount such as `1500m`, `1.5Gi`, `1e3` or `12E`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    /// In thousand-millionths, the finest step that Kubernetes keeps.
    nanos: i128,
}

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a quantity: a number such as 1500m, 1.5Gi, 1e3 or 12E is expected")]
pub struct QuantityError {
    text: String,
}

impl Quantity {
    /// Parses an amount exactly as Kubernetes does.
    ///
    /// # Errors
    /// [`QuantityError`] for what Kubernetes refuses.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        Err(QuantityError { text: text.to_owned() })
    }

    /// In whole units, rounded up (Kubernetes' `Value`); 0 for a negative amount.
    #[must_use]
    pub fn units(self) -> u64 {
        let _ = self.nanos;
        0
    }

    /// In thousandths, rounded up (Kubernetes' `MilliValue`); 0 for a negative amount.
    #[must_use]
    pub fn millis(self) -> u64 {
        0
    }
}
