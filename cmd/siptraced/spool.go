package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"siptraced/cmd/siptraced/internal/cluster"
	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/spool"
	"siptraced/cmd/siptraced/internal/spooltool"
)

func spoolCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "spool", Short: "look into the spool's directory, mend it, take messages out"}
	group(cmd)
	cmd.AddCommand(spoolCheckCommand(), spoolDumpCommand(), spoolRepairCommand(), spoolForgetCommand())
	return cmd
}

// errWrong ends a command that found something wrong, and printed it.
var errWrong = errors.New("the spool is not as it should be")

// oneDir takes the directory of a spool.
func oneDir(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: %s takes one directory, that of spool.dir", errUsage, cmd.CommandPath())
	}
	return nil
}

// interruptible is a context that signals end.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
}

// reading shows how far the reading of a spool came.
type reading struct {
	what string
	out  io.Writer
	bar  *progressbar.ProgressBar
}

func (r *reading) begin(size int64) { r.bar = newBar(r.what, size, r.out) }

func (r *reading) add(n int64) {
	if r.bar != nil {
		_ = r.bar.Add64(n)
	}
}

func (r *reading) end() {
	if r.bar != nil {
		_ = r.bar.Finish()
	}
}

func spoolCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check DIR", Short: "verify every message of a spool, and say what waits for whom; also of a running daemon",
		Long: "Verifies every record of the directory, and says what is in it, what is wrong with it and what waits for each sink. Nothing is changed: it may be used on the directory " +
			"of a running siptraced, or on a copy. It exits with 0 only if nothing is wrong.",
		Args: oneDir,
	}
	asJSON := cmd.Flags().Bool("json", false, "print one JSON object")
	isCopy := cmd.Flags().Bool("copy", false, "the directory was copied while siptraced worked on it: what is missing at its end is not lost")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := interruptible(cmd)
		defer stop()
		p := &reading{what: args[0], out: cmd.ErrOrStderr()}
		r, err := spooltool.Check(ctx, args[0], spooltool.CheckOptions{Copy: *isCopy, Begin: p.begin, Progress: p.add})
		p.end()
		if err != nil {
			return err
		}
		print := r.Text
		if *asJSON {
			print = r.JSON
		}
		if err := print(cmd.OutOrStdout()); err != nil {
			return err
		}
		if !r.Good() {
			return fmt.Errorf("%s: %w", args[0], errWrong)
		}
		return nil
	}
	return cmd
}

func spoolDumpCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dump DIR", Short: "write the messages of a spool as HEP3, pcapng or JSON",
		Long: "Writes what the directory has, from all shards and in the order of time. Nothing is changed: it may be used on the directory of a running siptraced. " +
			"siptraced replay reads each format.",
		Args: oneDir,
	}
	opt := spooltool.DumpOptions{}
	f := cmd.Flags()
	format := f.StringP("format", "f", string(spooltool.JSON), "hep (HEP3 packets one after the other), pcapng (for Wireshark and sngrep) or json (one object per line)")
	output := f.StringP("output", "o", "", "write to `FILE`, which must not exist; default: standard output")
	f.StringArrayVar(&opt.CallIDs, "call-id", nil, "only the messages of this call; may be repeated")
	f.Func("since", "only messages captured at this `TIME` or later: 2026-01-31T15:04:05Z, \"2026-01-31 15:04:05\" (local), or 15m (so long ago)", moment(&opt.Since))
	f.Func("until", "only messages captured at this `TIME` or earlier", moment(&opt.Until))
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		ctx, stop := interruptible(cmd)
		defer stop()
		if opt.Format = spooltool.Format(*format); opt.Format != spooltool.JSON && opt.Format != spooltool.HEP && opt.Format != spooltool.PCAPNG {
			return fmt.Errorf("%w: --format %s: want hep, pcapng or json", errUsage, *format)
		}
		out := cmd.OutOrStdout()
		if *output != "" {
			file, err := os.OpenFile(*output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, file.Close()) }()
			out = file
		} else if terminal, is := out.(*os.File); is && opt.Format != spooltool.JSON && isatty.IsTerminal(terminal.Fd()) {
			return fmt.Errorf("%w: %s is not for a terminal: name a file (-o), or another program behind |", errUsage, *format)
		}
		p := &reading{what: args[0], out: cmd.ErrOrStderr()}
		opt.Out, opt.Begin, opt.Progress = out, p.begin, p.add
		d, err := spooltool.Dump(ctx, args[0], opt)
		p.end()
		return errors.Join(err, dumped(cmd.ErrOrStderr(), d))
	}
	return cmd
}

// dumped says what became of a dump. It is an error if messages were left out.
func dumped(out io.Writer, d spooltool.Dumped) error {
	fmt.Fprintf(out, "%d messages\n", d.Messages)
	if d.Late > 0 {
		fmt.Fprintf(out, "%d of them stand behind younger ones: they came long after their time\n", d.Late)
	}
	var errs []error
	if d.TooLarge > 0 {
		errs = append(errs, fmt.Errorf("%d messages are too large for HEP, and are left out: use --format json or pcapng", d.TooLarge))
	}
	if n := len(d.Undecodable); n > 0 {
		errs = append(errs, fmt.Errorf("%d batches have no messages that this siptraced can read, the first one: %w", n, d.Undecodable[0]))
	}
	return errors.Join(errs...)
}

// moment reads the value of a flag.
func moment(to *time.Time) func(string) error {
	return func(text string) error {
		if ago, err := time.ParseDuration(text); err == nil {
			*to = time.Now().Add(-ago)
			return nil
		}
		for _, layout := range []string{time.RFC3339Nano, time.DateTime, "2006-01-02 15:04", time.DateOnly} {
			if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
				*to = t
				return nil
			}
		}
		return fmt.Errorf("%q is no time: write 2026-01-31T15:04:05Z, \"2026-01-31 15:04:05\" or 15m", text)
	}
}

func spoolRepairCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "repair DIR", Short: "mend a damaged spool, of a siptraced that is stopped",
		Long: "Writes the whole messages of damaged files anew, and makes indexes and positions again. What is damaged is kept in DIR/damaged-<time>. siptraced starts with a damaged spool " +
			"as well, and reads on behind what is damaged; repair keeps it from being found again and again.",
		Args: oneDir,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := interruptible(cmd)
		defer stop()
		p := &reading{what: args[0], out: cmd.ErrOrStderr()}
		r, err := spooltool.Repair(ctx, args[0], spooltool.CheckOptions{Begin: p.begin, Progress: p.add})
		p.end()
		if r != nil {
			repaired(cmd.OutOrStdout(), r)
		}
		if err != nil {
			return err
		}
		if !r.After.Good() {
			return fmt.Errorf("%s: %w: %s", args[0], errWrong, strings.Join(r.After.Wrong, "; "))
		}
		return nil
	}
	return cmd
}

// repaired prints what was done.
func repaired(out io.Writer, r *spooltool.Repaired) {
	if r.Before != nil && r.Before.Good() {
		fmt.Fprintln(out, "nothing is wrong, nothing was done")
		return
	}
	if r.Before != nil {
		for _, w := range r.Before.Wrong {
			fmt.Fprintln(out, "was wrong:", w)
		}
	}
	for _, d := range r.Done {
		fmt.Fprintln(out, "done:", d)
	}
	if r.Aside != "" {
		fmt.Fprintln(out, "what was damaged is in", r.Aside)
	}
	if r.After != nil {
		fmt.Fprintf(out, "%d messages are lost; %d are whole\n", r.Lost, r.After.Messages)
	}
}

func spoolForgetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "forget SINK", Short: "keep nothing any longer for a sink that is gone for good",
		Long: "Removes the position of a sink, so that the spool gives up what waited for it. SINK is the name that siptrace.sinks has, such as store or mirror.homer. siptraced must not run, " +
			"unless the spool is in a cluster. A sink that is still configured begins anew.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%w: %s takes the name of one sink", errUsage, cmd.CommandPath())
			}
			return nil
		},
	}
	src := sources(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := interruptible(cmd)
		defer stop()
		cfg, err := config.Load(*src)
		if err != nil {
			return err
		}
		place := cfg.Spool.Dir
		if cfg.Spool.NATS == "" {
			err = spooltool.Forget(ctx, place, args[0])
		} else {
			place, err = forgetInCluster(ctx, cfg.Spool, args[0])
		}
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: nothing is kept for %s any longer\n", place, args[0])
		}
		return err
	}
	return cmd
}

func forgetInCluster(ctx context.Context, s spool.Config, sink string) (place string, err error) {
	e, err := cluster.Open(ctx, cluster.Config{URL: s.NATS, Credentials: s.Credentials, CA: s.CA, Replicas: s.Replicas}, slog.New(slog.DiscardHandler))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, e.Close(ctx)) }()
	return e.Place(), spooltool.ForgetCommon(ctx, e, sink)
}
