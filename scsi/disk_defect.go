package scsi

// READ DEFECT DATA(10) and (12): SBC-3 §5.17, §5.18. The lists are empty.

func runReadDefects10(t *Task) {
	b := t.scratch(4)
	clear(b)
	b[1] = t.CDB[2] & 0x1f // PLISTV, GLISTV and the format as requested
	t.reply(b, lenBytes7(t))
}

func runReadDefects12(t *Task) {
	b := t.scratch(8)
	clear(b)
	b[1] = t.CDB[1] & 0x1f
	t.reply(b, lenBytes6x4(t))
}
