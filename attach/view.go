package attach

// View is what has become of an attachment, as the other side tells it.
type View struct {
	// Now says in a few words how it is: "running", "not there any more".
	Now string `json:"now"`
	// Problems are what is not as the record says, each with what to do.
	Problems []string `json:"problems,omitempty"`
}
