package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/migrate"
)

func migrateCommand() *cobra.Command {
	opt := migrate.Options{HostName: config.HostName}
	var patch, yaml, notes bool
	cmd := &cobra.Command{
		Use:   "migrate KAMAILIO.CFG",
		Short: "what to change in kamailio.cfg, and siptraced.yaml for the rest",
		Long: `Reads a kamailio.cfg with the siptrace module and prints (a) a patch with the
lines that change there, (b) siptraced.yaml, (c) in words what keeps working,
what moves, and what can't be seen from outside the proxy.

  siptraced migrate kamailio.cfg                       all three; patch takes it as it is
  siptraced migrate --patch kamailio.cfg | patch -p0   in the directory of kamailio.cfg
  siptraced migrate --yaml kamailio.cfg > siptraced.yaml

Nothing is written.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%w: migrate takes one kamailio.cfg, but got %q", errUsage, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			plan, err := migrate.New(args[0], opt)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			all := !patch && !yaml && !notes
			if all {
				fmt.Fprintf(out, "### (a) kamailio.cfg: patch -p0 -d %q takes all of this, or what --patch prints\n", plan.Dir)
			}
			if all || patch {
				fmt.Fprint(out, plan.Patch())
			}
			if all {
				fmt.Fprint(out, "### (b) siptraced.yaml: what --yaml prints\n")
			}
			if all || yaml {
				fmt.Fprint(out, plan.YAML())
			}
			if all {
				fmt.Fprint(out, "### (c) in words: what --notes prints\n")
			}
			if all || notes {
				fmt.Fprint(out, plan.Notes())
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&patch, "patch", false, "print the patch only")
	f.BoolVar(&yaml, "yaml", false, "print siptraced.yaml only")
	f.BoolVar(&notes, "notes", false, "print the words only")
	kamailioFlags(cmd, &opt.Kamailio)
	f.StringVar(&opt.Listen, "listen", "", "where the proxy finds siptraced, `udp:HOST:PORT` or tcp:HOST:PORT (default: a free choice on loopback, from port 9060)")
	return cmd
}
