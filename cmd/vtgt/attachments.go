package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/api"
)

func newGetAttachments(g *globals) *cobra.Command {
	return newResource(g, "attachments", "List what vtgt attach has set up elsewhere", "  vtgt get attachments\n  vtgt get attachments -o json", tableAttachments)
}

func tableAttachments(ctx context.Context, c *api.Client, w io.Writer) error {
	as, err := c.Attachments(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, a := range as {
		lun := fmt.Sprint(a.LUN)
		if a.LUN == api.AllLUNs {
			lun = "all"
		}
		var steps []string
		for _, s := range a.Steps {
			t := s.Name
			if s.State != api.Done {
				t += " (" + string(s.State) + ")"
			}
			steps = append(steps, t)
		}
		rows = append(rows, []string{a.ID, a.Kind, subject(&a), a.Target, lun, string(a.State),
			time.Since(a.Created).Round(time.Second).String(), strings.Join(steps, ",")})
	}
	return columns(w, "ID KIND SUBJECT TARGET LUN STATE AGE STEPS", rows)
}

// subject is what people call the subject of an attachment.
func subject(a *api.Attachment) string {
	if n := a.Options["name"]; n != "" {
		return n
	}
	return a.Subject
}
