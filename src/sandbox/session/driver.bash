exec </dev/null
set +m +o history
unset HISTFILE
shopt -s expand_aliases
BASH_ARGV0=bash
__stockade=begin
__stockade() { return "$1"; }
trap 'if (( ${#BASH_SOURCE[@]} > 1 )); then __stockade_flags=$-; set +e; trap "(( \${#BASH_SOURCE[@]} < 2 )) || __stockade 2" DEBUG; set -T; shopt -s extdebug; return 0; fi' 57
