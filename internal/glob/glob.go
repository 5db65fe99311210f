package glob

// Match reports whether pattern describes the whole of s. It takes at most
// len(pattern)*len(s) steps.
func Match(pattern, s string) bool {
	p, i := 0, 0
	star, back := -1, 0 // behind the last '*', and where in s it is tried next
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			p++
			star, back = p, i
		case p < len(pattern) && pattern[p] == '?':
			// One character, not one byte.
			p++
			for i++; i < len(s) && s[i]&0xc0 == 0x80; i++ {
			}
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			back++
			p, i = star, back
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// Any reports whether one of the patterns describes s.
func Any(patterns []string, s string) bool {
	for _, p := range patterns {
		if Match(p, s) {
			return true
		}
	}
	return false
}
