// Command alerts evaluates the alerts of a rule file as Prometheus does, with series that it makes up, and fails unless
// exactly those fire that cases.yaml expects.
//
//	alerts RULES
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"go.yaml.in/yaml/v3"
)

// Interval of scrapes and evaluations, which is what the Prometheus operator takes for both.
const interval = 30 * time.Second

//go:embed cases.yaml
var casesFile []byte

// What is in cases.yaml. Series and their values are in the notation of Prometheus' own rule tests.
type cases struct {
	// The series of an installation that is well.
	Healthy map[string]string `yaml:"healthy"`
	Cases   []testCase        `yaml:"cases"`
}

type testCase struct {
	Name string `yaml:"name"`
	// Series that are added, or that are otherwise than where all is well. Those without values are not there.
	Series map[string]string `yaml:"series"`
	// The names of the alerts that fire at a time.
	Firing map[model.Duration][]string `yaml:"firing"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: alerts RULES")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(file string) error {
	var all cases
	if err := yaml.Unmarshal(casesFile, &all); err != nil {
		return fmt.Errorf("cases.yaml: %w", err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	// The rules are loaded once a case, which a pipe does not allow.
	rulesFile, err := os.CreateTemp("", "rules-*.yaml")
	if err != nil {
		return err
	}
	defer os.Remove(rulesFile.Name())
	if _, err := rulesFile.Write(content); err != nil {
		return err
	}
	if err := rulesFile.Close(); err != nil {
		return err
	}

	known, fired := map[string]bool{}, map[string]bool{}
	var failures []error
	for _, c := range all.Cases {
		if err := c.run(all.Healthy, rulesFile.Name(), known, fired); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", c.Name, err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if !fired[name] {
			failures = append(failures, fmt.Errorf("no case makes %s fire", name))
		}
	}
	if err := errors.Join(failures...); err != nil {
		return err
	}
	fmt.Printf("%d alerts in %d cases\n", len(known), len(all.Cases))
	return nil
}

// run adds the names of all alerts to known, and to fired those that fired when it was looked.
func (c testCase) run(healthy map[string]string, file string, known, fired map[string]bool) (failure error) {
	loader, err := promqltest.NewLazyLoader(c.load(healthy), promqltest.LazyLoaderOpts{})
	if err != nil {
		return err
	}
	defer func() { failure = errors.Join(failure, loader.Close()) }()
	loader.SubqueryInterval = interval

	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:    rules.EngineQueryFunc(loader.QueryEngine(), loader.Storage()),
		AppendableV2: loader.Storage(),
		Context:      context.Background(),
		NotifyFunc:   func(context.Context, string, ...*rules.Alert) {},
		Logger:       slog.New(slog.DiscardHandler),
		Parser:       parser.NewParser(parser.Options{}),
	})
	groups, errs := manager.LoadGroups(interval, labels.EmptyLabels(), "", nil, false, file)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var alerts []*rules.AlertingRule
	for _, group := range groups {
		for _, rule := range group.Rules() {
			if alert, ok := rule.(*rules.AlertingRule); ok {
				alert.SetRestored(true)
				alerts = append(alerts, alert)
				known[alert.Name()] = true
			}
		}
	}

	times := slices.Sorted(maps.Keys(c.Firing))
	var failures []error
	for at := time.Duration(0); len(times) > 0; at += interval {
		now := time.Unix(0, 0).UTC().Add(at)
		loader.WithSamplesTill(now, func(err error) {
			failures = append(failures, err)
			for _, group := range groups {
				group.Eval(loader.Context(), now)
			}
		})
		for _, alert := range alerts {
			failures = append(failures, alert.LastError())
		}
		if at < time.Duration(times[0]) {
			continue
		}
		expected := slices.Sorted(slices.Values(c.Firing[times[0]]))
		found := firing(alerts)
		if !slices.Equal(found, expected) {
			failures = append(failures, fmt.Errorf("after %s %q fire, expected %q", times[0], found, expected))
		}
		for _, name := range found {
			fired[name] = true
		}
		times = times[1:]
	}
	return errors.Join(failures...)
}

// load is the case's series in the notation of promqltest.
func (c testCase) load(healthy map[string]string) string {
	series := maps.Clone(healthy)
	maps.Copy(series, c.Series)
	var text strings.Builder
	fmt.Fprintf(&text, "load %s\n", model.Duration(interval))
	for _, name := range slices.Sorted(maps.Keys(series)) {
		if values := series[name]; values != "" {
			fmt.Fprintf(&text, "  %s %s\n", name, values)
		}
	}
	return text.String()
}

// firing gives the names of those that fire, each once.
func firing(alerts []*rules.AlertingRule) []string {
	names := map[string]bool{}
	for _, alert := range alerts {
		for _, active := range alert.ActiveAlerts() {
			if active.State == rules.StateFiring {
				names[alert.Name()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}
