package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach"
	"github.com/vtgt/vtgt/attach/libvirt"
	"github.com/vtgt/vtgt/attach/vsphere"
)

// inspectors ask the other side what has become of attachments, by ID, for each kind of
// attachment that can be asked without further credentials.
func inspectors() []func(ctx context.Context, c *api.Client, as []api.Attachment) map[string]attach.View {
	return []func(ctx context.Context, c *api.Client, as []api.Attachment) map[string]attach.View{libvirt.Inspect, vsphere.Inspect}
}

// attachment is a record with what the other side says.
type attachment struct {
	api.Attachment
	*attach.View
}

func newGetAttachments(g *globals) *cobra.Command {
	var offline bool
	format := "table"
	cmd := &cobra.Command{
		Use:   "attachments",
		Short: "List what vtgt attach has set up elsewhere, and what has become of it",
		Long: `List what vtgt attach has set up elsewhere. libvirt is asked what has become of it: NOW says
how the domain is and where it has the disk, and what is not as the record says stands below.
Of ESXi hosts it says whether they are logged in.`,
		Example: "  vtgt get attachments\n  vtgt get attachments -o json\n  vtgt get attachments --offline",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(format); err != nil {
				return err
			}
			c, ctx, cancel := g.client(cmd)
			defer cancel()
			defer c.Close()
			as, err := c.Attachments(ctx)
			if err != nil {
				return err
			}
			views := map[string]attach.View{}
			if !offline {
				for _, f := range inspectors() {
					maps.Copy(views, f(ctx, c, as))
				}
			}
			all := make([]attachment, len(as))
			for i := range as {
				all[i].Attachment = as[i]
				if v, ok := views[as[i].ID]; ok {
					all[i].View = &v
				}
			}
			return showAttachments(cmd, all, format)
		},
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "show the records alone; ask nobody")
	addOutput(cmd, &format)
	return cmd
}

func showAttachments(cmd *cobra.Command, all []attachment, format string) error {
	out := cmd.OutOrStdout()
	if format != "table" {
		b, err := json.MarshalIndent(all, "", "  ")
		if err == nil && format == "yaml" {
			b, err = toYAML(b)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, strings.TrimRight(string(b), "\n"))
		return err
	}
	var rows [][]string
	for _, a := range all {
		lun, now := fmt.Sprint(a.LUN), ""
		if a.LUN == api.AllLUNs {
			lun = "all"
		}
		if a.View != nil {
			now = a.Now
		}
		var steps []string
		for _, s := range a.Steps {
			t := s.Name
			if s.State != api.Done {
				t += " (" + string(s.State) + ")"
			}
			steps = append(steps, t)
		}
		rows = append(rows, []string{a.ID, a.Kind, subject(&a.Attachment), a.Target, lun, string(a.State), now,
			time.Since(a.Created).Round(time.Second).String(), strings.Join(steps, ",")})
	}
	if err := columns(out, "ID KIND SUBJECT TARGET LUN STATE NOW AGE STEPS", rows); err != nil {
		return err
	}
	for _, a := range all {
		if a.View == nil {
			continue
		}
		for _, p := range a.Problems {
			fmt.Fprintf(out, "%s: %s\n", a.ID, p)
		}
	}
	return nil
}

// subject is what people call the subject of an attachment.
func subject(a *api.Attachment) string {
	if n := a.Options["name"]; n != "" {
		return n
	}
	return a.Subject
}
