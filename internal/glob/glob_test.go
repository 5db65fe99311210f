package glob

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "iqn.a:b/c", true},
		{"iqn.2026-11.org.vtgt:vm1", "iqn.2026-11.org.vtgt:vm1", true},
		{"iqn.2026-11.org.vtgt:vm1", "iqn.2026-11.org.vtgt:vm12", false},
		{"iqn.*:vm?", "iqn.2026-11.org.vtgt:vm1", true}, {"iqn.*:vm?", "iqn.2026-11.org.vtgt:vm", false},
		{"*a*b", "aab", true}, {"*a*b", "aabc", false}, {"a*b*c", "axbxbxc", true}, {"?", "é", true}, {"??", "é", false},
		{"*?", "é", true}, {"a[b]", "a[b]", true}, {"a[b]", "ab", false},
	} {
		if got := Match(c.pattern, c.s); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
	// Many stars stay cheap.
	if Match(strings.Repeat("*a", 100)+"b", strings.Repeat("a", 200)) {
		t.Error("matched")
	}
	if Any(nil, "a") || !Any([]string{"b", "a"}, "a") {
		t.Error("Any")
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a*b?", "axxbc")
	f.Fuzz(func(t *testing.T, p, s string) {
		Match(p, s)
		if !strings.ContainsAny(s, "*?") && !Match(s, s) || !Match("*"+s+"*", s) && !strings.ContainsAny(s, "*?") {
			t.Error("a name does not match itself")
		}
	})
}
