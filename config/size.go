package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. Its text is a whole number with a unit: B, KiB, MiB,
// GiB, TiB, PiB (powers of 1024) or kB, MB, GB, TB, PB (powers of 1000); a number
// alone is bytes.
type Size int64

// units in the order String tries them.
var units = [...]struct {
	name string
	n    int64
}{
	{"PiB", 1 << 50}, {"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"PB", 1e15}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// ParseSize reads a Size. Its errors say what to write instead.
func ParseSize(s string) (Size, error) {
	t := strings.TrimSpace(s)
	i := 0
	for i < len(t) && t[i] >= '0' && t[i] <= '9' {
		i++
	}
	num, unit := t[:i], strings.TrimSpace(t[i:])
	if num == "" {
		return 0, fmt.Errorf("%q is not a size: write a whole number with a unit, such as 10GiB or 512MiB", s)
	}
	if strings.HasPrefix(unit, ".") || strings.HasPrefix(unit, ",") {
		return 0, fmt.Errorf("%q has a fraction: write a whole number of a smaller unit, such as 1536MiB for 1.5GiB", s)
	}
	n, err := strconv.ParseInt(num, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is too large: the limit is 8191PiB", s)
	}
	mult := int64(0)
	if unit == "" {
		mult = 1
	}
	for _, u := range units {
		if unit == u.name {
			mult = u.n
		}
	}
	if mult == 0 {
		if len(unit) == 1 && strings.ContainsAny(strings.ToUpper(unit), "KMGTP") {
			u := strings.ToUpper(unit)
			dec := u + "B"
			if u == "K" {
				dec = "kB"
			}
			return 0, fmt.Errorf("%q leaves open which unit is meant: write %s%siB (powers of 1024) or %s%s (powers of 1000)", s, num, u, num, dec)
		}
		return 0, fmt.Errorf("%q has the unknown unit %q: use B, KiB, MiB, GiB, TiB, PiB or kB, MB, GB, TB, PB", s, unit)
	}
	if n > math.MaxInt64/mult {
		return 0, fmt.Errorf("%q is too large: the limit is 8191PiB", s)
	}
	return Size(n * mult), nil
}

// String writes z with the largest unit that leaves a whole number; ParseSize
// reads it back.
func (z Size) String() string {
	if z > 0 {
		for _, u := range units {
			if int64(z)%u.n == 0 && u.n > 1 {
				return strconv.FormatInt(int64(z)/u.n, 10) + u.name
			}
		}
	}
	return strconv.FormatInt(int64(z), 10) + "B"
}
