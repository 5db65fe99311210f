// Package backing stands on internal.
package backing

import _ "example.com/good/internal/sys"
