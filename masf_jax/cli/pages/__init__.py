"""Pages of HTML about a run or a comparison."""
