package main

import (
	"go/ast"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// counts is what is counted of a package, without generated files and, but for
// the last field, without tests.
type counts struct {
	folder       string
	files, lines int

	methods sets           // files by the type that has methods there
	owners  sets           // types by the name of a method; "" for functions
	fields  map[string]int // by struct
	lengths []int          // of functions, in lines

	mutexes, atomics, pools int // fields and variables
	gos                     int // go statements

	wide, wideInTests []string // where comments are too wide
}

// sets are sets of strings by name.
type sets map[string]map[string]bool

func (s sets) add(name, value string) {
	if s[name] == nil {
		s[name] = map[string]bool{}
	}
	s[name][value] = true
}

// shared returns the sorted names of the sets with more than one element.
func (s sets) shared() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s)), func(name string) bool { return len(s[name]) < 2 })
}

func count(folder string) *counts {
	p := &counts{folder: filepath.Clean(folder), methods: sets{}, owners: sets{}, fields: map[string]int{}}
	for _, path := range must(filepath.Glob(filepath.Join(folder, "*.go"))) {
		switch f := parse(path); {
		case f.isGenerated():
		case f.isTest():
			p.wideInTests = append(p.wideInTests, f.comments(maxColumns)...)
		default:
			p.wide = append(p.wide, f.comments(maxColumns)...)
			p.file(f)
		}
	}
	return p
}

func (p *counts) file(f *source) {
	p.files++
	p.lines += strings.Count(f.text, "\n")
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			p.function(f, n)
		case *ast.TypeSpec:
			p.structs(n)
		case *ast.Field:
			p.state(f.of(n.Type), width(n))
		case *ast.ValueSpec:
			p.variables(f, n)
		case *ast.GoStmt:
			p.gos++
		}
		return true
	})
}

// typeName finds the name of a type in its source, or of that which it is a
// pointer to or an array of.
var typeName = regexp.MustCompile(`^(?:\*|\[[^\]]*\])*([\w.]*)`)

func (p *counts) function(f *source, fn *ast.FuncDecl) {
	p.lengths = append(p.lengths, f.line(fn.End())-f.line(fn.Pos())+1)
	owner := ""
	if fn.Recv != nil {
		owner = typeName.FindStringSubmatch(f.of(fn.Recv.List[0].Type))[1]
		p.methods.add(owner, f.path)
	}
	p.owners.add(fn.Name.Name, owner)
}

// structs counts the fields of a struct, and by themselves those of a struct
// without a name in it.
func (p *counts) structs(spec *ast.TypeSpec) {
	ast.Inspect(spec.Type, func(n ast.Node) bool {
		if s, ok := n.(*ast.StructType); ok {
			p.fields[spec.Name.Name] = max(p.fields[spec.Name.Name], fields(s))
		}
		return true
	})
}

func fields(s *ast.StructType) (n int) {
	for _, field := range s.Fields.List {
		n += width(field)
	}
	return n
}

// width is how many fields a line declares; an embedded one has no name.
func width(field *ast.Field) int { return max(1, len(field.Names)) }

func (p *counts) variables(f *source, spec *ast.ValueSpec) {
	if spec.Type != nil {
		p.state(f.of(spec.Type), len(spec.Names))
	}
	for _, value := range spec.Values {
		if literal, ok := value.(*ast.CompositeLit); ok {
			p.state(f.of(literal.Type), 1)
		}
	}
}

// state counts n fields or variables of a type that goroutines share. What a
// pointer points to is counted where it stands.
func (p *counts) state(source string, n int) {
	switch name := typeName.FindStringSubmatch(source)[1]; {
	case strings.HasPrefix(source, "*"):
	case name == "sync.Mutex" || name == "sync.RWMutex":
		p.mutexes += n
	case name == "sync.Pool":
		p.pools += n
	case strings.HasPrefix(name, "atomic."):
		p.atomics += n
	}
}

// largest returns the struct with the most fields.
func (p *counts) largest() (name string, fields int) {
	for _, one := range slices.Sorted(maps.Keys(p.fields)) {
		if p.fields[one] > fields {
			name, fields = one, p.fields[one]
		}
	}
	return name, fields
}

// length returns how many lines so many percent of the functions do not exceed.
func (p *counts) length(percent int) int {
	if len(p.lengths) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(p.lengths))[(len(p.lengths)*percent+99)/100-1]
}
