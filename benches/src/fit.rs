//! Straight lines through what was measured, and how sure one may be of their slopes.

/// A straight line through points, by least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// By how much y grows with one x.
    pub slope: f64,
    /// y where x is 0.
    pub intercept: f64,
    /// The part of what differs that the line explains, from 0 to 1.
    pub r_squared: f64,
    /// Half of the interval around the slope in which the true one is in 95 of 100 cases.
    pub margin: f64,
}

impl Line {
    /// The line through `points`; `None` for fewer than three, or if all have the same x.
    ///
    /// Measured one after the other, neighbours are alike, so many of them tell less than their number says: the margin counts them for as
    /// many independent ones as they are worth by what is left of each in the next (an autoregressive process of the first order).
    #[must_use]
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        if points.len() < 3 {
            return None;
        }
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let sum = |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|(x, y)| of(x - mean_x, y - mean_y)).sum::<f64>();
        let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
        if xx <= 0.0 {
            return None;
        }
        let slope = xy / xx;
        let intercept = mean_y - slope * mean_x;
        let left: Vec<f64> = points.iter().map(|(x, y)| y - intercept - slope * x).collect();
        let unexplained = left.iter().map(|one| one * one).sum::<f64>();
        let worth = (count * independence(&left)).max(3.0);
        let degrees = worth - 2.0;
        // The variance of what is left, and of the slope, both as if only independent points had been measured.
        let error = (unexplained / count * worth / degrees / (xx / count * worth)).sqrt();
        Some(Self {
            slope,
            intercept,
            r_squared: if yy <= 0.0 { 1.0 } else { 1.0 - unexplained / yy },
            margin: student(degrees) * error,
        })
    }

    /// The least that the slope is likely to be.
    #[must_use]
    pub fn at_least(&self) -> f64 {
        self.slope - self.margin
    }

    /// The most that it is likely to be.
    #[must_use]
    pub fn at_most(&self) -> f64 {
        self.slope + self.margin
    }
}

/// The means of `parts` stretches of `points`, one after the other and as long as each other; fewer if there are fewer points.
#[must_use]
pub fn in_parts(points: &[(f64, f64)], parts: usize) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(parts.max(1)).max(1);
    let mean = |part: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| part.iter().map(of).sum::<f64>() / part.len() as f64;
    points
        .chunks(size)
        .map(|part| (mean(part, |point| point.0), mean(part, |point| point.1)))
        .collect()
}

/// What a value is worth as a part of an independent one, by how alike neighbours are.
fn independence(values: &[f64]) -> f64 {
    let all = values.iter().map(|value| value * value).sum::<f64>();
    if all <= 0.0 {
        return 1.0;
    }
    let alike = values.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / all;
    // Neighbours that differ more than chance lets them do not make more of the points than there are.
    let alike = alike.clamp(0.0, 0.99);
    (1.0 - alike) / (1.0 + alike)
}

/// How many standard errors on both sides hold 95 of 100 cases, for so many degrees of freedom (Student's distribution).
fn student(degrees: f64) -> f64 {
    /// From one degree of freedom on.
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    // Rounded down: the interval is rather too wide than too narrow.
    let whole = degrees.max(1.0) as usize;
    match TABLE.get(whole - 1) {
        Some(errors) => *errors,
        // The first terms of its expansion around the normal distribution.
        None => 1.96 + 2.372 / degrees + 2.823 / (degrees * degrees),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between -0.5 and 0.5 that look random, the same each time.
    fn noise(count: usize) -> Vec<f64> {
        let mut state = 7_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1_u64 << 31) as f64 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn a_straight_line_is_found_exactly() {
        let points: Vec<_> = (0..10).map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x))).collect();
        let line = Line::through(&points).unwrap();
        assert!(
            near(line.slope, 2.0) && near(line.intercept, 3.0) && near(line.r_squared, 1.0),
            "{line:?}"
        );
        assert!(line.margin < 1e-6, "{line:?}");
    }

    #[test]
    fn textbook_numbers_give_the_slope_and_the_margin_of_the_textbook() {
        // Slope 0.6 with a standard error of sqrt(2.4 / 3 / 10), three degrees of freedom; neighbours are not alike.
        let points = [(1.0, 2.0), (2.0, 4.0), (3.0, 5.0), (4.0, 4.0), (5.0, 5.0)];
        let line = Line::through(&points).unwrap();
        assert!(
            near(line.slope, 0.6) && near(line.intercept, 2.2) && near(line.r_squared, 0.6),
            "{line:?}"
        );
        assert!((line.margin - 3.182 * 0.08_f64.sqrt()).abs() < 0.01, "{line:?}");
    }

    #[test]
    fn there_is_no_line_through_too_little() {
        assert_eq!(Line::through(&[]), None);
        assert_eq!(Line::through(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(Line::through(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }

    #[test]
    fn what_does_not_grow_has_zero_in_its_interval_and_what_grows_has_not() {
        let noise = noise(200);
        let grown = |slope: f64| -> Vec<_> {
            let numbered = noise.iter().enumerate();
            numbered
                .map(|(x, noise)| (x as f64, slope * x as f64 + noise))
                .collect()
        };
        let flat = Line::through(&grown(0.0)).unwrap();
        assert!(flat.at_least() < 0.0 && 0.0 < flat.at_most(), "{flat:?}");
        let steep = Line::through(&grown(0.01)).unwrap();
        assert!(
            0.0 < steep.at_least() && steep.at_least() < 0.01 && 0.01 < steep.at_most(),
            "{steep:?}"
        );
    }

    #[test]
    fn numbers_that_are_like_their_neighbours_are_trusted_less() {
        let independent: Vec<_> = noise(200).into_iter().enumerate().map(|(x, y)| (x as f64, y)).collect();
        // Each keeps most of the one before: it wanders, as memory does.
        let mut kept = 0.0;
        let wandering: Vec<_> = independent
            .iter()
            .map(|(x, y)| {
                kept = 0.9 * kept + y;
                (*x, kept)
            })
            .collect();
        let naive = |points: &[(f64, f64)]| {
            let line = Line::through(points).unwrap();
            let count = points.len() as f64;
            let left = points
                .iter()
                .map(|(x, y)| (y - line.intercept - line.slope * x).powi(2))
                .sum::<f64>();
            let spread = points
                .iter()
                .map(|(x, _)| (x - (count - 1.0) / 2.0).powi(2))
                .sum::<f64>();
            1.96 * (left / (count - 2.0) / spread).sqrt()
        };
        let (alone, together) = (Line::through(&independent).unwrap(), Line::through(&wandering).unwrap());
        assert!(alone.margin < 1.5 * naive(&independent), "{alone:?}");
        assert!(2.5 * naive(&wandering) < together.margin, "{together:?}");
    }

    #[test]
    fn parts_are_means_of_stretches() {
        let points: Vec<_> = (0..6).map(|x| (f64::from(x), f64::from(10 * x))).collect();
        assert_eq!(in_parts(&points, 3), [(0.5, 5.0), (2.5, 25.0), (4.5, 45.0)]);
        assert_eq!(in_parts(&points, 100).len(), 6);
        assert_eq!(in_parts(&points[..5], 2), [(1.0, 10.0), (3.5, 35.0)]);
        assert!(in_parts(&[], 5).is_empty());
    }

    #[test]
    fn few_degrees_of_freedom_widen_the_interval() {
        assert!(near(student(1.0), 12.706) && near(student(3.9), 3.182) && near(student(30.0), 2.042));
        assert!((student(60.0) - 2.000).abs() < 0.002 && (student(10_000.0) - 1.960).abs() < 0.001);
        assert!(near(student(0.2), 12.706));
    }
}
