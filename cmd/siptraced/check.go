package main

import (
	"fmt"
	"io"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/dryrun"
	"siptraced/cmd/siptraced/internal/livecheck"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "check", Short: "validate the configuration and print what is set, and where", Args: noArgs}
	src := sources(cmd)
	f := cmd.Flags()
	all := f.Bool("all", false, "print every setting, those with their defaults too")
	keys := f.Bool("keys", false, "print every key with its default and meaning, as Markdown, and read nothing")
	dry := f.String("dry-run", "", "say for each message of a capture (pcap, or JSON lines) what each rule does with it")
	live := f.Bool("live", false, "ask the database, the ports, the spool and the files too, and send one message through; it leaves nothing behind")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		out := cmd.OutOrStdout()
		if *keys {
			_, err := fmt.Fprint(out, config.Markdown())
			return err
		}
		cfg, err := config.Load(*src)
		if err != nil {
			return err
		}
		printConfig(out, cfg, *all)
		if *dry != "" {
			if err := dryrun.Run(cfg, *dry, out); err != nil {
				return err
			}
		}
		if *live {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return livecheck.Run(ctx, cfg, out)
		}
		fmt.Fprintln(out, "the configuration is good; whether database, ports, spool and files are as it says: siptraced check --live")
		return nil
	}
	return cmd
}

// printConfig prints what is set, then what follows from it, and last what an
// operator must not miss.
func printConfig(out io.Writer, cfg *config.Config, all bool) {
	defaults := 0
	for _, v := range cfg.Values {
		if v.IsDefault() && !all {
			defaults++
			continue
		}
		fmt.Fprintln(out, v)
	}
	for _, s := range cfg.Sockets {
		fmt.Fprintln(out, s)
	}
	fmt.Fprint(out, cfg.Rules.Describe())
	if defaults > 0 {
		fmt.Fprintf(out, "%d other settings have their defaults; --all prints them too\n", defaults)
	}
	for _, n := range slices.Concat(cfg.Remarks, cfg.Notes) {
		fmt.Fprintln(out, "note:", n)
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintln(out, "warning:", w)
	}
}
