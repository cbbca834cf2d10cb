//! Money as an exact decimal with two places.

use std::{fmt, str::FromStr};

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An amount of money: a whole number of minor units (hundredths).
///
/// As text it always has two places (`"100.00"`), which is how the `Order` resource stores it.
/// [`json_number`] reads and writes it as a JSON number, which is the form in the public HTTP
/// bodies. It is never converted to a binary floating-point number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i64);

/// Why a text is not an amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The text is not a decimal number.
    #[error("is not a decimal number")]
    NotANumber,
    /// The number has more than two decimal places. It is refused, not rounded.
    #[error("has more than two decimal places")]
    TooManyPlaces,
    /// The number is larger than [`Money::MAX`], or larger than [`Money::MAX_BALANCE`] in absolute value.
    #[error("is larger than 999999999999.99")]
    TooLarge,
    /// The amount is zero or negative, but a charge, a refund or a refill needs a positive amount.
    #[error("must be greater than zero")]
    NotPositive,
}

impl Money {
    /// The amount zero.
    pub const ZERO: Money = Money(0);

    /// The largest amount of one order or one refill: 999999999999.99. Its fourteen
    /// digits stay exact even in clients that read JSON numbers as doubles.
    pub const MAX: Money = Money(99_999_999_999_999);

    /// The largest balance: 9999999999999.99, whose fifteen digits stay exact, too. Only refunds raise a
    /// balance above [`Money::MAX`].
    pub const MAX_BALANCE: Money = Money(999_999_999_999_999);

    /// An amount of `minor` units (hundredths). The value is not checked: use this for values from a
    /// database that stores only valid amounts.
    pub const fn from_minor(minor: i64) -> Self {
        Money(minor)
    }

    /// The amount in minor units (hundredths).
    pub const fn minor(self) -> i64 {
        self.0
    }

    /// Parses a positive amount. Only a positive amount can be charged or refilled.
    ///
    /// # Errors
    /// [`MoneyError`] if the text is not a decimal, has more than two places, or is
    /// not between 0.01 and [`Money::MAX`].
    pub fn positive(text: &str) -> Result<Self, MoneyError> {
        Money::from_str(text)?.require_positive()
    }

    /// Refuses an amount that is zero or negative, or larger than [`Money::MAX`].
    ///
    /// # Errors
    /// [`MoneyError::NotPositive`] or [`MoneyError::TooLarge`].
    pub fn require_positive(self) -> Result<Self, MoneyError> {
        match self.0 {
            ..=0 => Err(MoneyError::NotPositive),
            minor if minor > Money::MAX.0 => Err(MoneyError::TooLarge),
            _ => Ok(self),
        }
    }

    /// The amount with one decimal place if that is exact, otherwise with two: `800.0`, `99.95`.
    /// This is the form of the public JSON bodies and of the messages' texts.
    pub fn to_short_string(self) -> String {
        let full = self.to_string();
        full.strip_suffix('0').unwrap_or(&full).to_owned()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let minor = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", minor / 100, minor % 100)
    }
}

impl FromStr for Money {
    type Err = MoneyError;

    /// Parses a decimal (`100`, `99.95`, `-1`, `1e2`) exactly.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let is_numeric = text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E'));
        if !is_numeric {
            return Err(MoneyError::NotANumber);
        }
        let digits = text.trim_start_matches(['-', '0']).split(['.', 'e', 'E']).next().unwrap_or_default().len();
        if digits > 13 {
            return Err(MoneyError::TooLarge);
        }
        let parse = if text.contains(['e', 'E']) { Decimal::from_scientific } else { Decimal::from_str_exact };
        let decimal = parse(text).map_err(|error| parse_error(error, text))?.normalize();
        if decimal.scale() > 2 {
            return Err(MoneyError::TooManyPlaces);
        }
        let minor =
            decimal.checked_mul(Decimal::ONE_HUNDRED).and_then(|minor| i64::try_from(minor).ok()).ok_or(MoneyError::TooLarge)?;
        if minor.abs() > Money::MAX_BALANCE.0 {
            return Err(MoneyError::TooLarge);
        }
        Ok(Money(minor))
    }
}

fn parse_error(error: rust_decimal::Error, text: &str) -> MoneyError {
    use rust_decimal::Error::*;
    let negative_exponent = text.contains("e-") || text.contains("E-");
    match error {
        Underflow => MoneyError::TooManyPlaces,
        // A large negative exponent would need that many decimal places.
        ScaleExceedsMaximumPrecision(_) if negative_exponent => MoneyError::TooManyPlaces,
        ExceedsMaximumPossibleValue | LessThanMinimumPossibleValue | ScaleExceedsMaximumPrecision(_) => MoneyError::TooLarge,
        ErrorString(_) | ConversionTo(_) => MoneyError::NotANumber,
    }
}

/// Writes a decimal string with two places, as in the `Order` resource.
impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

pub mod json_number {
    //! [`Money`] as a JSON number, for `#[serde(with = "…")]`. It is exact in both
    //! directions, because it reads and writes the text of the number.

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
    use serde_json::value::RawValue;

    use super::{Money, MoneyError};

    /// Writes the amount with at least one decimal: `0.0`, `99.95`.
    ///
    /// # Errors
    /// The errors of the serializer, which must be that of `serde_json`.
    pub fn serialize<S: Serializer>(money: &Money, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(money.to_short_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }

    /// Reads a JSON number. A string is refused, even if it contains only digits.
    ///
    /// # Errors
    /// An error with the text of a [`MoneyError`], or with a text that a JSON number is required.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        if !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return Err(de::Error::custom("must be a JSON number"));
        }
        text.parse().map_err(|error: MoneyError| de::Error::custom(error))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_each_usual_form_of_a_number() {
        for (text, minor) in [("100", 10_000), ("99.95", 9_995), ("0.5", 50), ("1e2", 10_000), ("-1", -100), ("100.000", 10_000)]
        {
            assert_eq!(text.parse::<Money>(), Ok(Money(minor)), "{text}");
        }
    }

    #[test]
    fn refuses_text_that_is_not_an_exact_amount() {
        use MoneyError::*;
        for (text, error) in [
            ("0.001", TooManyPlaces),
            ("1.005", TooManyPlaces),
            ("1e-3", TooManyPlaces),
            ("1e-400", TooManyPlaces),
            ("1E-400", TooManyPlaces),
            ("10000000000000", TooLarge),
            ("-10000000000000", TooLarge),
            ("1234567890123456789", TooLarge),
            ("1e400", TooLarge),
            ("99999999999999999999999999999999999999", TooLarge),
            ("NaN", NotANumber),
            ("", NotANumber),
            ("1,5", NotANumber),
            ("1_000", NotANumber),
            (".5", NotANumber),
            ("+5", NotANumber),
            ("١٢", NotANumber),
        ] {
            assert_eq!(text.parse::<Money>(), Err(error), "{text}");
        }
        assert_eq!(Money::positive("0.00"), Err(NotPositive));
        assert_eq!(Money::positive("-5"), Err(NotPositive));
    }

    #[test]
    fn the_largest_and_the_smallest_amount_are_valid() {
        assert_eq!("9999999999999.99".parse::<Money>(), Ok(Money::MAX_BALANCE));
        assert_eq!("-9999999999999.99".parse::<Money>(), Ok(Money(-Money::MAX_BALANCE.minor())));
        assert_eq!(Money::positive("999999999999.99"), Ok(Money::MAX));
        assert_eq!(Money::positive("1000000000000"), Err(MoneyError::TooLarge));
        assert_eq!("000000000000001.5".parse::<Money>(), Ok(Money(150)));
        assert_eq!(Money::positive("0.01"), Ok(Money(1)));
        assert_eq!(Money(1).require_positive(), Ok(Money(1)));
        for minor in [0, -1] {
            assert_eq!(Money(minor).require_positive(), Err(MoneyError::NotPositive));
        }
    }

    #[test]
    fn text_has_two_places_and_the_short_form_as_few_as_are_exact() {
        for (minor, full, short) in [(0, "0.00", "0.0"), (5, "0.05", "0.05"), (-5, "-0.05", "-0.05"), (12_340, "123.40", "123.4")]
        {
            assert_eq!((Money(minor).to_string(), Money(minor).to_short_string()), (full.to_owned(), short.to_owned()));
        }
        assert_eq!(serde_json::to_string(&Money(9_995)).unwrap(), r#""99.95""#);
        assert_eq!(serde_json::from_str::<Money>(r#""99.95""#).unwrap(), Money(9_995));
        assert!(serde_json::from_str::<Money>(r#""99.955""#).is_err());
    }

    #[test]
    fn is_a_json_number_with_a_decimal() {
        #[derive(Serialize, Deserialize)]
        struct Body {
            #[serde(with = "json_number")]
            balance: Money,
        }
        for (minor, json) in [(0, "0.0"), (90_000, "900.0"), (9_995, "99.95"), (-150, "-1.5")] {
            let body = serde_json::to_string(&Body { balance: Money(minor) }).unwrap();
            assert_eq!(body, format!(r#"{{"balance":{json}}}"#));
            assert_eq!(serde_json::from_str::<Body>(&body).unwrap().balance, Money(minor));
        }
        assert!(serde_json::from_str::<Body>(r#"{"balance":"100"}"#).is_err());
    }

    proptest! {
        #[test]
        fn text_and_back_is_the_same_amount(minor in -Money::MAX_BALANCE.0..=Money::MAX_BALANCE.0) {
            let money = Money(minor);
            prop_assert_eq!(money.to_string().parse(), Ok(money));
            prop_assert_eq!(money.to_short_string().parse(), Ok(money));
        }

        #[test]
        fn any_text_is_parsed_or_refused_without_a_panic(text in "[-+0-9.eE]{0,40}") {
            let _ = text.parse::<Money>();
        }
    }
}
