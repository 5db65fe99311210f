package scsi

// A modeField is a field of more than one bit in a mode page: sense data point at the
// first bit of a field (SPC-4 §4.5.2.4.2), whichever of its bits offends.
type modeField struct{ at, msb, bits int }

// The fields of the pages: SPC-4 §7.5, SBC-3 §6.5. Whole bytes need no entry.
var (
	recoveryFields  = []modeField{{10, 7, 16}}
	reconnectFields = []modeField{{4, 7, 16}, {6, 7, 16}, {8, 7, 16}, {10, 7, 16}, {12, 6, 3}, {12, 2, 3}, {14, 7, 16}}
	cachingFields   = []modeField{{3, 7, 4}, {3, 3, 4}, {4, 7, 16}, {6, 7, 16}, {8, 7, 16}, {10, 7, 16}, {12, 2, 2}, {14, 7, 16}}
	controlFields   = []modeField{{2, 7, 3}, {3, 7, 4}, {3, 2, 2}, {4, 5, 2}, {5, 2, 3}, {8, 7, 16}, {10, 7, 16}}
	extensionFields = []modeField{{5, 3, 4}}
	powerFields     = []modeField{{2, 7, 2}, {4, 7, 32}, {8, 7, 32}, {12, 7, 32}, {16, 7, 32}, {20, 7, 32}, {39, 7, 2}, {39, 5, 2}, {39, 3, 2}}
	exceptionFields = []modeField{{3, 3, 4}, {4, 7, 32}, {8, 7, 32}}
	thresholdFields = []modeField{{16, 5, 3}, {16, 2, 3}, {17, 7, 8}, {20, 7, 32}}
)

// fieldOf is the place of the field of page p that bit bit of byte at is in.
func (p *modePage) fieldOf(at, bit int) (int, int) {
	pos := 8*at + 7 - bit
	for _, f := range p.fields {
		if first := 8*f.at + 7 - f.msb; pos >= first && pos < first+f.bits {
			return f.at, f.msb
		}
	}
	return at, bit
}
