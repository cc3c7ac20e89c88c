# Counts words and pairs of words of a text that it makes up: hashes, strings, sorting.
#
# usage: perl words.pl WORDS
use strict;
use warnings;

my ($wanted) = @ARGV;
my $state = 42;
my (%words, %pairs, @text);
for my $n (1 .. $wanted) {
    $state = ($state * 1103515245 + 12345) & 0x7fffffff;
    my $word = join '', map { chr(97 + (($state >> $_) % 23)) } (3, 7, 11, 15)[0 .. ($state >> 20) % 4];
    push @text, $word . ($state >> 16) % 50;
}
for my $line (map { join ' ', @text[$_ * 10 .. $_ * 10 + 9] } 0 .. $wanted / 10 - 1) {
    my $last = '';
    for my $word (split / /, $line) {
        $words{$word}++;
        $pairs{"$last $word"}++;
        $last = $word;
    }
}
my @most = (sort { $pairs{$b} <=> $pairs{$a} || $a cmp $b } keys %pairs)[0 .. 9];
printf "digest %d %d %s\n", scalar keys %words, scalar keys %pairs, join ',', @most;
