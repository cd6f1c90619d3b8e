package observe_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/natscall/natscall/examples/internal/prom"
)

// known is which metrics there are: the values of each label of each, by the names that PromQL has
// for them.
type known map[string]map[string][]string

// targetLabels are what Prometheus adds to every metric. Their values are not for us to know.
var targetLabels = []string{"job", "instance"}

// learn takes the names from what processes serve.
func learn(all []prom.Families) known {
	k := known{"up": {}} // Prometheus's own
	for _, families := range all {
		for name, f := range families {
			names := []string{name}
			if f.GetType().String() == "HISTOGRAM" {
				names = []string{name + "_bucket", name + "_sum", name + "_count"}
			}
			for _, n := range names {
				if k[n] == nil {
					k[n] = map[string][]string{}
				}
				if strings.HasSuffix(n, "_bucket") {
					k[n]["le"] = []string{"+Inf"}
				}
				for _, m := range f.GetMetric() {
					for _, l := range m.GetLabel() {
						k[n][l.GetName()] = append(k[n][l.GetName()], l.GetValue())
					}
				}
			}
		}
	}
	return k
}

// has reports whether a metric may have a label.
func (k known) has(metric, label string) bool {
	return k[metric][label] != nil || slices.Contains(targetLabels, label)
}

// check finds what an expression asks for and nothing has. labels are those of its result, as far
// as an aggregation says so; nil means those of the metrics.
func (k known) check(expression string) (labels []string, err error) {
	tokens, err := tokenize(expression)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", expression, err)
	}
	p := parser{known: k, tokens: tokens}
	p.operands()
	if len(p.metrics) == 0 {
		p.errs = append(p.errs, errors.New("there is no metric in it"))
	}
	if len(p.tokens) > 0 {
		p.errs = append(p.errs, fmt.Errorf("%q is left", strings.Join(p.tokens, "")))
	}
	if err := errors.Join(p.errs...); err != nil {
		return nil, fmt.Errorf("%s:\n%w", expression, err)
	}
	return p.labels, nil
}

// token is a name, a number with its unit, a text, a range of time, or an operator.
var token = regexp.MustCompile(`^(?:[A-Za-z_:][\w:]*|\d[\w.]*|"(?:[^"\\]|\\.)*"|\[[^\]]+\]|=~|!~|!=|==|>=|<=|[-+*/%^(){},=<>])`)

func tokenize(expression string) (tokens []string, err error) {
	for rest := strings.TrimSpace(expression); rest != ""; rest = strings.TrimSpace(rest) {
		t := token.FindString(rest)
		if t == "" {
			return nil, fmt.Errorf("no token begins with %.20q", rest)
		}
		tokens = append(tokens, t)
		rest = rest[len(t):]
	}
	return tokens, nil
}

// The functions and aggregations that expressions use. Another one is added here, after a thought
// about what it does to labels.
var (
	functions    = []string{"rate", "histogram_quantile"}
	aggregations = []string{"sum", "max", "count"}
	binaries     = []string{"+", "-", "*", "/", "%", "==", "!=", ">", "<", ">=", "<=", "and", "or", "unless"}
)

// parser reads the part of PromQL that the dashboard and the rules use.
type parser struct {
	known
	tokens  []string
	metrics []string // that were met
	labels  []string // of the last operand
	errs    []error
}

func (p *parser) fail(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

func (p *parser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *parser) next() (t string) {
	if t = p.peek(); t != "" {
		p.tokens = p.tokens[1:]
	}
	return t
}

func (p *parser) expect(want string) {
	if got := p.next(); got != want {
		p.fail("%q stands where %q should", got, want)
	}
}

// operands reads an expression: operands with operators in between. Both sides of one have the same
// labels, or one is a number.
func (p *parser) operands() {
	p.operand()
	for slices.Contains(binaries, p.peek()) {
		p.next()
		before := p.labels
		if p.operand(); p.labels == nil {
			p.labels = before
		} else if before != nil && !slices.Equal(before, p.labels) {
			p.fail("the labels %v are compared with %v", before, p.labels)
		}
	}
}

func (p *parser) operand() {
	t := p.next()
	p.labels = nil
	switch {
	case t == "":
		p.fail("an operand is missing")
	case t == "(":
		p.operands()
		p.expect(")")
	case t[0] >= '0' && t[0] <= '9':
	case slices.Contains(aggregations, t):
		p.aggregation()
	case p.peek() == "(":
		p.function(t)
	default:
		p.selector(t)
	}
}

// aggregation reads what follows, as in "by (a, b) (x)".
func (p *parser) aggregation() {
	var by []string
	if p.peek() == "by" {
		p.next()
		p.expect("(")
		for p.peek() != ")" && p.peek() != "" {
			by = append(by, p.next())
			if p.peek() == "," {
				p.next()
			}
		}
		p.expect(")")
	}
	first := len(p.metrics)
	p.expect("(")
	p.operands()
	p.expect(")")
	for _, m := range p.metrics[first:] {
		for _, label := range by {
			if !p.has(m, label) {
				p.fail("%s has no label %s", m, label)
			}
		}
	}
	p.labels = by
}

func (p *parser) function(name string) {
	if !slices.Contains(functions, name) {
		p.fail("the function %s is not known", name)
	}
	first := len(p.metrics)
	p.expect("(")
	p.operands()
	for p.peek() == "," {
		p.next()
		p.operands()
	}
	p.expect(")")
	switch name {
	case "rate":
		for _, m := range p.metrics[first:] {
			if !strings.HasSuffix(m, "_total") && !strings.HasSuffix(m, "_count") && !strings.HasSuffix(m, "_bucket") && !strings.HasSuffix(m, "_sum") {
				p.fail("%s is no counter, and has no rate", m)
			}
		}
	case "histogram_quantile":
		if !slices.Contains(p.labels, "le") {
			p.fail("there is no quantile without le")
		}
		p.labels = slices.DeleteFunc(slices.Clone(p.labels), func(l string) bool { return l == "le" })
	}
}

// selector reads what follows a metric: matchers and a range of time.
func (p *parser) selector(metric string) {
	if p.known[metric] == nil {
		p.fail("there is no metric %s", metric)
		return
	}
	p.metrics = append(p.metrics, metric)
	if p.peek() == "{" {
		p.next()
		for p.peek() != "}" && p.peek() != "" {
			p.matcher(metric, p.next(), p.next(), p.next())
			if p.peek() == "," {
				p.next()
			}
		}
		p.expect("}")
	}
	if strings.HasPrefix(p.peek(), "[") {
		p.next()
	}
}

// matcher checks that a label has values that match, also where those are to be left out. What a
// variable of the dashboard stands for is not known.
func (p *parser) matcher(metric, label, operator, text string) {
	pattern := strings.Trim(text, `"`)
	if !p.has(metric, label) {
		p.fail("%s has no label %s", metric, label)
		return
	}
	if strings.HasPrefix(pattern, "$") || slices.Contains(targetLabels, label) {
		return
	}
	if operator == "=" || operator == "!=" {
		pattern = regexp.QuoteMeta(pattern)
	}
	value, err := regexp.Compile("^(?:" + pattern + ")$")
	if err != nil {
		p.fail("%s: %v", label, err)
	} else if !slices.ContainsFunc(p.known[metric][label], value.MatchString) {
		p.fail("no %s of %s is %s", label, metric, text)
	}
}
