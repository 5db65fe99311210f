package config

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	iqnName = regexp.MustCompile(`^iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[a-z0-9.:-]+)?$`)
	euiName = regexp.MustCompile(`^eui\.[0-9A-Fa-f]{16}$`)
	naaName = regexp.MustCompile(`^naa\.([0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})$`)
	hex16   = regexp.MustCompile(`^[0-9a-fA-F]{16}$`)
)

// isPlainName tells whether s may be an object's name: 1 to 63 letters, digits, dots,
// dashes and underlines, of which the first is a letter or a digit.
func isPlainName(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// maxISCSIName is the longest iSCSI name, bytes (RFC 7143 §4.2.7.1).
const maxISCSIName = 223

// CheckISCSIName checks an iSCSI node name of type iqn., eui. or naa. (RFC 7143
// §4.2.7, RFC 3722: lower case). The error says what to write.
func CheckISCSIName(s string) error {
	const form = "write iqn.YEAR-MONTH.REVERSED.DOMAIN:NAME, such as iqn.2026-11.org.example:vm1"
	switch {
	case s == "":
		return fmt.Errorf("the iSCSI name is empty; %s", form)
	case len(s) > maxISCSIName:
		return fmt.Errorf("the iSCSI name has %d bytes, the limit is %d; choose a shorter one", len(s), maxISCSIName)
	case iqnName.MatchString(s), euiName.MatchString(s), naaName.MatchString(s):
		return nil
	}
	if low := strings.ToLower(s); low != s && CheckISCSIName(low) == nil {
		return fmt.Errorf("%q has capital letters, which iSCSI names have not; write %s", s, low)
	}
	return fmt.Errorf("%q is not an iSCSI name; %s", clip(s), form)
}
