// A click on a head sorts the table by that column, numbers as numbers, what is no number last; another click turns it round.
document.addEventListener("click", (event) => {
  const head = event.target.closest(".md-typeset table th");
  if (!head || !head.textContent.trim()) return;
  const table = head.closest("table");
  const column = [...head.parentNode.children].indexOf(head);
  const turn = head.dataset.turn === "1" ? -1 : 1;
  table.querySelectorAll("th").forEach((each) => delete each.dataset.turn);
  head.dataset.turn = String(turn);
  const value = (row) => row.children[column].textContent.trim();
  const number = (row) => parseFloat(value(row));
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [number(a), number(b)];
    if (isNaN(x) && isNaN(y)) return turn * value(a).localeCompare(value(b));
    return isNaN(x) ? 1 : isNaN(y) ? -1 : turn * (x - y);
  });
  table.tBodies[0].append(...rows);
});
