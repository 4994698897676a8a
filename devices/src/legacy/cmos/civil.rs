//! Dates of the Gregorian calendar and Unix time.

const SECONDS_PER_DAY: i64 = 86_400;
const DAYS_PER_400_YEARS: i64 = 146_097;

/// A date and time of day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: u16,
    pub(super) month: u8,
    pub(super) day: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

impl Civil {
    /// The date `seconds` after the Unix epoch, held within the years 0 to 9999.
    pub(super) fn from_unix(seconds: i64) -> Self {
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        // Years and leap days: guess from the mean year, then correct by at most one.
        let mut year = 1970 + (days * 400).div_euclid(DAYS_PER_400_YEARS);
        while days < days_before(year) {
            year -= 1;
        }
        while days >= days_before(year + 1) {
            year += 1;
        }
        let mut left = days - days_before(year);
        let mut month = 1;
        while left >= month_days(year, month) {
            left -= month_days(year, month);
            month += 1;
        }
        Self {
            year: year.clamp(0, 9999) as u16,
            month: month as u8,
            day: left as u8 + 1,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
        }
    }

    /// Seconds since the Unix epoch. A day past the end of its month runs into the next.
    pub(super) fn to_unix(self) -> i64 {
        let year = i64::from(self.year);
        let months: i64 = (1..i64::from(self.month)).map(|month| month_days(year, month)).sum();
        let days = days_before(year) + months + i64::from(self.day) - 1;
        let of_day =
            i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        days * SECONDS_PER_DAY + of_day
    }

    /// Day of the week: 1 for Sunday to 7 for Saturday.
    pub(super) fn weekday(self) -> u8 {
        // 1 January 1970 was a Thursday.
        let days = self.to_unix().div_euclid(SECONDS_PER_DAY);
        ((days + 4).rem_euclid(7) + 1) as u8
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days from the Unix epoch to 1 January of `year`.
fn days_before(year: i64) -> i64 {
    let leap_days = |year: i64| year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
