//! Elementary functions as vector polynomials.
//!
//! In: f32 vectors (any lanes). Out: the same shape, about 1e-7 relative to the true value.
//! Coefficients interpolate the functions at Chebyshev nodes; the range and the form of each fit
//! stand beside it. The same operations on every feature level, so the same bits.

use super::{Elem, KernelBuilder, Value};

/// `(e^r - 1 - r) / r²` on `|r| ≤ ln 2 / 2`.
const EXP: [f64; 5] = [
    5.000000000e-01,
    1.666657703e-01,
    4.166655466e-02,
    8.363173075e-03,
    1.392617612e-03,
];
/// `2 (atanh s - s) / s³` in `s²` on `|s| ≤ 3 - 2√2`: its series, which ends well before f32 does.
const ATANH: [f64; 4] = [2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0];
/// `(sin r - r) / r³` in `r²` on `|r| ≤ π/4`.
const SIN: [f64; 4] = [
    -1.666666666e-01,
    8.333331870e-03,
    -1.984008438e-04,
    2.724962010e-06,
];
/// `(cos r - 1 + r²/2) / r⁴` in `r²` on `|r| ≤ π/4`.
const COS: [f64; 4] = [
    4.166666666e-02,
    -1.388888767e-03,
    2.480059841e-05,
    -2.730070415e-07,
];
/// `(tanh x - x) / x³` in `x²` on `|x| ≤ 0.625`.
const TANH: [f64; 6] = [
    -3.333333317e-01,
    1.333330356e-01,
    -5.395925959e-02,
    2.176891871e-02,
    -8.343945658e-03,
    2.292744936e-03,
];
/// `Φ(−t)^-⅛` in `t` on `0 ≤ t ≤ 6.5`, where Φ is the normal distribution's: the power keeps a tail that
/// falls as `e^(−t²/2)` near a polynomial, and beyond the range it only grows (the form of Abramowitz and
/// Stegun 7.1.28). The error of `t Φ(−t)` is below 2.5e-7.
const NORMAL_TAIL: [f64; 10] = [
    1.090507589e+00,
    1.087657571e-01,
    4.879020625e-02,
    9.535108946e-03,
    7.996105503e-04,
    3.698304878e-04,
    -2.766163333e-05,
    2.359543665e-05,
    -3.771953846e-06,
    4.772351892e-07,
];

impl KernelBuilder<'_> {
    fn like(&mut self, x: Value, v: f64) -> Value {
        self.constant(x.ty, v)
    }

    /// `c[0] + x (c[1] + x (…))`.
    fn polynomial(&mut self, x: Value, coefficients: &[f64]) -> Value {
        let (last, rest) = coefficients
            .split_last()
            .expect("a polynomial has coefficients");
        let mut sum = self.like(x, *last);
        for c in rest.iter().rev() {
            let c = self.like(x, *c);
            sum = self.fma(sum, x, c);
        }
        sum
    }

    /// `e^x`; arguments beyond ±87.3 are clamped, so the result is finite and positive.
    pub fn exp(&mut self, x: Value) -> Value {
        let (low, high) = (self.like(x, -87.3), self.like(x, 87.3));
        let x = self.max(x, low);
        let x = self.min(x, high);
        // Added to 1.5 · 2^23, x / ln 2 is rounded to an integer n, which the low bits of the sum hold.
        let (log2_e, integers) = (
            self.like(x, std::f64::consts::LOG2_E),
            self.like(x, 12_582_912.0),
        );
        let sum = self.fma(x, log2_e, integers);
        let n = self.sub(sum, integers);
        // ln 2 in two parts, the first with few enough bits that n times it is exact.
        let (upper, lower) = (
            self.like(x, -0.693145751953125),
            self.like(x, -1.428_606_820_309_417_2e-6),
        );
        let r = self.fma(n, upper, x);
        let r = self.fma(n, lower, r);
        let p = self.polynomial(r, &EXP);
        let square = self.mul(r, r);
        let p = self.fma(p, square, r);
        let one = self.like(x, 1.0);
        let p = self.add(p, one);
        // Times 2^n: n goes to the exponent, which stays that of a normal number.
        let sum = self.bitcast(sum, Elem::I32);
        let power = self.shl(sum, 23);
        let bits = self.bitcast(p, Elem::I32);
        let bits = self.add(bits, power);
        self.bitcast(bits, Elem::F32)
    }

    /// The natural logarithm of a normal, positive number.
    pub fn ln(&mut self, x: Value) -> Value {
        // x = 2^n · m with √½ ≤ m < √2, by the bits of √½.
        const ROOT: f64 = 0x3f35_04f3_u32 as f64;
        let bits = self.bitcast(x, Elem::I32);
        let root = self.constant(bits.ty, ROOT);
        let above = self.sub(bits, root);
        let n = self.shr_signed(above, 23);
        let whole = self.shl(n, 23);
        let m = self.sub(bits, whole);
        let m = self.bitcast(m, Elem::F32);
        // ln m = 2 atanh s with s = (m - 1) / (m + 1).
        let one = self.like(x, 1.0);
        let (below, above) = (self.sub(m, one), self.add(m, one));
        let s = self.div(below, above);
        let square = self.mul(s, s);
        let p = self.polynomial(square, &ATANH);
        let cube = self.mul(square, s);
        let twice = self.add(s, s);
        let small = self.fma(p, cube, twice);
        let n = self.to_float(n, Elem::F32);
        let (upper, lower) = (
            self.like(x, 0.693145751953125),
            self.like(x, 1.428_606_820_309_417_2e-6),
        );
        let small = self.fma(n, lower, small);
        self.fma(n, upper, small)
    }

    /// `1 / (1 + e^-x)`.
    pub fn sigmoid(&mut self, x: Value) -> Value {
        let one = self.like(x, 1.0);
        self.logistic(one, x)
    }

    /// `x / (1 + e^-x)`.
    pub fn silu(&mut self, x: Value) -> Value {
        self.logistic(x, x)
    }

    /// `numerator / (1 + e^-x)`.
    fn logistic(&mut self, numerator: Value, x: Value) -> Value {
        let minus = self.neg(x);
        let e = self.exp(minus);
        let one = self.like(x, 1.0);
        let below = self.add(one, e);
        self.div(numerator, below)
    }

    /// Hyperbolic tangent.
    pub fn tanh(&mut self, x: Value) -> Value {
        let size = self.abs(x);
        let square = self.mul(x, x);
        let p = self.polynomial(square, &TANH);
        let cube = self.mul(square, size);
        let small = self.fma(p, cube, size);
        let twice = self.add(size, size);
        let e = self.exp(twice);
        let one = self.like(x, 1.0);
        let below = self.add(e, one);
        let two = self.like(x, 2.0);
        let part = self.div(two, below);
        let large = self.sub(one, part);
        let edge = self.like(x, 0.625);
        let inside = self.lt(size, edge);
        let t = self.select(inside, small, large);
        self.copy_sign(t, x)
    }

    /// `x/2 (1 + erf(x / √2))`, which is `max(x, 0) − |x| Φ(−|x|)`.
    pub fn gelu(&mut self, x: Value) -> Value {
        let size = self.abs(x);
        let end = self.like(x, 32.0);
        let t = self.min(size, end);
        let mut power = self.polynomial(t, &NORMAL_TAIL);
        for _ in 0..3 {
            power = self.mul(power, power);
        }
        let tail = self.div(t, power);
        let zero = self.like(x, 0.0);
        let ramp = self.max(zero, x);
        self.sub(ramp, tail)
    }

    /// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    pub fn gelu_tanh(&mut self, x: Value) -> Value {
        let square = self.mul(x, x);
        let cube = self.mul(square, x);
        let c = self.like(x, 0.044715);
        let inner = self.fma(cube, c, x);
        let scale = self.like(x, 0.797_884_560_802_865_4);
        let inner = self.mul(inner, scale);
        let t = self.tanh(inner);
        self.half_times(x, t)
    }

    /// `x / (1 + e^(-1.702 x))`.
    pub fn quick_gelu(&mut self, x: Value) -> Value {
        let scale = self.like(x, 1.702);
        let inner = self.mul(x, scale);
        self.logistic(x, inner)
    }

    /// `x/2 (1 + f)`.
    fn half_times(&mut self, x: Value, f: Value) -> Value {
        let half = self.like(x, 0.5);
        let half = self.mul(x, half);
        let one = self.like(x, 1.0);
        let sum = self.add(f, one);
        self.mul(half, sum)
    }

    /// `cap * tanh(x / cap)`.
    pub fn softcap(&mut self, x: Value, cap: f32) -> Value {
        let c = self.like(x, f64::from(cap));
        let inner = self.div(x, c);
        let t = self.tanh(inner);
        self.mul(t, c)
    }

    /// `(sin x, cos x)`, accurate for `|x| ≤ 1e8`: the range is reduced in f64.
    pub fn sin_cos(&mut self, x: Value) -> (Value, Value) {
        let wide = self.to_f64(x);
        let per = self.like(wide, std::f64::consts::FRAC_2_PI);
        let turns = self.mul(wide, per);
        let n = self.round_even(turns);
        let quarter = self.like(wide, -std::f64::consts::FRAC_PI_2);
        let rest = self.like(wide, -6.123_233_995_736_766e-17);
        let r = self.fma(n, quarter, wide);
        let r = self.fma(n, rest, r);
        let r = self.to_f32(r);
        let quadrant = self.to_int(n, Elem::I32);

        let square = self.mul(r, r);
        let p = self.polynomial(square, &SIN);
        let cube = self.mul(square, r);
        let sine = self.fma(p, cube, r);
        let q = self.polynomial(square, &COS);
        let (one, half) = (self.like(r, 1.0), self.like(r, -0.5));
        let start = self.fma(square, half, one);
        let fourth = self.mul(square, square);
        let cosine = self.fma(q, fourth, start);

        let (bit0, bit1) = (
            self.constant(quadrant.ty, 1.0),
            self.constant(quadrant.ty, 2.0),
        );
        let zero = self.constant(quadrant.ty, 0.0);
        let odd = self.and(quadrant, bit0);
        let swapped = self.ne(odd, zero);
        let s = self.select(swapped, cosine, sine);
        let c = self.select(swapped, sine, cosine);
        // sin is negative in quadrants 2 and 3, cos in 1 and 2.
        let s_sign = self.and(quadrant, bit1);
        let next = self.add(quadrant, bit0);
        let c_sign = self.and(next, bit1);
        (self.flip(s, s_sign), self.flip(c, c_sign))
    }

    /// Negates the lanes whose `bit` (0 or 2) is set.
    fn flip(&mut self, x: Value, bit: Value) -> Value {
        let sign = self.shl(bit, 30);
        let bits = self.bitcast(x, Elem::I32);
        let bits = self.xor(bits, sign);
        self.bitcast(bits, Elem::F32)
    }
}
